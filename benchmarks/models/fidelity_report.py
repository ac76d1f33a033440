"""Builds the tables and the plot of fidelity.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.models.fidelity_plan import Cell
from training.evaluation.report import Curve, Estimate, Plot, Report, Table
from training.saes import SAES

COMMAND = "python -m benchmarks.models.fidelity --data DATA --out DIR --report docs/results"
ASKED = {16: ("7 %", "4 %"), 32: ("3.5 %", "2 %"), 64: ("1 %", ".5 %")}
DATA = {
    "ml-1m-rated": "ML-1M, users <= 2999, ratings >= 4, users held out",
    "ml-1m": "ML-1M, all pairs, users held out",
    "amazon-beauty": "Amazon Beauty, leave-one-out",
}
POSITIVES = {"ml-1m-rated": "ratings >= 4", "ml-1m": "all pairs"}
VERSIONS = {
    "test": "given back",
    "test in place": "lost",
    "test in place, lossless": "lost, reconstruction taken for perfect",
}


@dataclass(frozen=True)
class Group:
    """The seeds of one cell of the plan that are there."""

    cell: Cell
    found: Sequence[Mapping[str, Any]]

    @classmethod
    def of_seeds(cls, cell: Cell, found: Mapping[str, Any], seeds: Sequence[int]) -> Group:
        """Collects the measured seeds of a cell."""
        names = [replace(cell, seed=seed).name for seed in seeds]
        return cls(cell, [found[name] for name in names if name in found])

    def of(self, figure: str, users: str = "test") -> Estimate | None:
        """Computes mean and standard error over the seeds; None if no seed has the figure."""
        values = [one[users][figure] for one in self.found if users in one]
        return Estimate.of(values) if values else None

    def mean(self, figure: str) -> float:
        """Computes the mean over the seeds, for the test users."""
        return float(np.mean([one["test"][figure] for one in self.found]))

    def cost(self, users: str = "test") -> str:
        return percent(self.of("ndcg_loss", users))

    def seeds(self) -> str:
        return " / ".join(f"{100 * one['test']['ndcg_loss']:.1f}" for one in self.found)

    def cpu_s(self) -> str:
        return f"{np.mean([one['cpu_s'] for one in self.found]):.0f}"


def percent(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    error = "" if estimate.error is None else f" ± {100 * estimate.error:.1f}"
    return f"{100 * estimate.mean:.1f}{error} %"


def short(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{estimate.mean:.3f}"


def report(plan: Sequence[Cell], found: Mapping[str, Any], seeds: Sequence[int]) -> Report:
    """Builds the report of the cells of the given seeds."""
    groups = [group for cell in plan if (group := Group.of_seeds(cell, found, seeds)).found]

    def chosen(table: str) -> list[Group]:
        return [group for group in groups if group.cell.table == table]

    tables = [
        bars(chosen("bars")),
        ablation(chosen("ablation")),
        paper(chosen("paper")),
        saes(chosen("saes")),
    ]
    for name in ("matrix", "sequential"):
        tables += matrix(chosen(name))
    return Report(
        name="fidelity",
        title="What an SAE's reconstruction costs",
        command=COMMAND,
        paragraphs=[],
        tables=[table for table in tables if table.rows],
        plot=plot(chosen("saes")),
        figures={name: found[name] for name in sorted(found)},
        seconds=sum(one["cpu_s"] for one in found.values()),
    )


def bars(groups: Iterable[Group]) -> Table:
    rows = []
    for group in groups:
        k = dict(group.cell.options)["k"]
        name = f"{group.cell.recommender}, {POSITIVES[group.cell.data]}, k = {k}"
        cost = [group.cost(), group.seeds(), *ASKED[k], group.cost("validation")]
        rows.append([name, *cost, *_quality(group), group.cpu_s()])
    columns = (
        "model",
        "nDCG@20 lost",
        "seeds",
        "asked",
        "stretch",
        "validation",
        *_QUALITY,
        "CPU s",
    )
    title = "ML-1M, TopK SAE of 1,024 neurons; test users, mean ± standard error of the seeds"
    return Table(title, columns, rows)


def ablation(groups: Iterable[Group]) -> Table:
    rows = [
        [group.cell.label, group.cost("validation"), group.cost(), *_quality(group), group.cpu_s()]
        for group in groups
    ]
    columns = ("change to the defaults", "validation", "nDCG@20 lost", *_QUALITY, "CPU s")
    return Table(f"{DATA['ml-1m-rated']}: ELSA, TopK, k = 32, one change at a time", columns, rows)


def paper(groups: Iterable[Group]) -> Table:
    rows = []
    for group in groups:
        for version, text in VERSIONS.items():
            if group.of("ndcg", version) is not None:
                overlap, cosine = (short(group.of(name, version)) for name in ("overlap", "cosine"))
                name = f"{group.cell.recommender}, {group.cell.label}"
                rows.append([name, text, group.cost(version), overlap, cosine])
    title = (
        f"{DATA['ml-1m-rated']}: TopK, k = 32; what becomes of the scale that standardising takes"
    )
    return Table(
        title, ("SAE", "scale and mean of z", "nDCG@20 lost", "overlap@20", "cosine of y"), rows
    )


def saes(groups: Iterable[Group]) -> Table:
    rows = [
        [
            f"{group.cell.sae}, k = {dict(group.cell.options)['k']}",
            group.cost(),
            *_quality(group),
            group.cpu_s(),
        ]
        for group in sorted(groups, key=lambda group: dict(group.cell.options)["k"])
    ]
    title = f"{DATA['ml-1m-rated']}: ELSA, every SAE, 100 epochs"
    return Table(title, ("SAE", "nDCG@20 lost", *_QUALITY, "CPU s"), rows)


def matrix(groups: Sequence[Group]) -> list[Table]:
    """Recommenders x SAEs, a table for each of a few figures."""
    if not groups:
        return []
    cells = {(group.cell.recommender, group.cell.sae): group for group in groups}
    names = list(dict.fromkeys(recommender for recommender, _ in cells))
    epochs = dict(groups[0].cell.options).get("epochs")
    heading = f"{DATA[groups[0].cell.data]}: k = 32, {epochs} epochs"
    figures: dict[str, Callable[[Group], str]] = {
        "nDCG@20 lost": Group.cost,
        "overlap@20": lambda group: short(group.of("overlap")),
        "l0": lambda group: f"{group.mean('l0'):.0f}",
        "dead neurons": lambda group: percent(Estimate(group.mean("dead_share"), None)),
    }
    tables = []
    for title, show in figures.items():
        rows = []
        for name in names:
            row = [show(cells[name, sae]) if (name, sae) in cells else "-" for sae in SAES]
            ndcg = next(group.of("ndcg") for group in groups if group.cell.recommender == name)
            rows.append([name, short(ndcg), *row])
        tables.append(Table(f"{heading}: {title}", ("recommender", "nDCG@20", *SAES), rows))
    return tables


def plot(groups: Iterable[Group]) -> Plot:
    """Builds the plot of cost against k, one curve for each SAE."""
    by_sae: dict[str, list[Group]] = {}
    for group in sorted(groups, key=lambda group: dict(group.cell.options)["k"]):
        by_sae.setdefault(group.cell.sae, []).append(group)
    curves = [
        Curve(
            sae,
            [dict(group.cell.options)["k"] for group in ordered],
            [estimate for group in ordered if (estimate := group.of("ndcg_loss")) is not None],
        )
        for sae, ordered in by_sae.items()
    ]
    return Plot("k", "share of nDCG@20 lost", curves)


_QUALITY = ("overlap@20", "cosine", "fvu", "l0", "dead")


def _quality(group: Group) -> list[str]:
    overlap, cosine, fvu = (short(group.of(name)) for name in ("overlap", "cosine", "fvu"))
    dead = Estimate(group.mean("dead_share"), None)
    return [overlap, cosine, fvu, f"{group.mean('l0'):.1f}", percent(dead)]

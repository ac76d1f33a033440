"""Figures of several runs joined: tables with error verdict_table, and the frontier as curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.evaluation.report import Curve, Plot, Report, Table
from training.studies.frontier.effects import COUNTS
from training.studies.frontier.figures import (
    Figures,
    figure_of,
    joined,
    labels_of,
    mean_of,
    minus,
    pair_of,
    several,
    short,
    signed,
)
from training.studies.frontier.verdicts import verdict_table, neurons_for_most

PLOTTED = (
    "boost + places",
    "target share + score",
    "tag boost + score",
    "tag boost + rank",
    "tag boost + relevance",
    "imputed tags + relevance",
    "filled tags + relevance",
    "ridge on z + relevance",
    "probe and tag, z + relevance",
    "dense probe + rank",
    "contrast + score",
    "contrast, untrained SAE + score",
    "BLEND, 5 neurons + score",
)
_BOOST = "tag boost + rank"
_PARAGRAPHS = (
    "One strength for each concept and method, such that the mean exposure share (a place weighs "
    "1 / log2(1 + rank)) of the test users' lists is the target; nDCG@20 there, on the users' held-out "
    "items. The strength is solved on the judged users' own lists, which involves no held-out item. Targets "
    "are .3, .5 and .7 for concepts of at least 60 items that could fill .9 of the lists, else 2 and 4 times "
    "the unsteered share.",
    "A method's name ends with what its gain is added to: score (over scale(z)), rank (1 / log2(1 + "
    "unsteered rank)), places (the same as a function of the score, as the service has it) or relevance (how "
    "likely an item of this rank is wanted, by the length of the history, learned from validation users). "
    "Means are over the concepts that all those methods reach which reach at least .9 of them; differences, "
    "of the same users, are over the concepts that both methods reach.",
    "± is the standard error: over users as clusters within the runs or over the runs, whichever is larger.",
)


def frontier_report(runs: Sequence[Figures], command: str) -> Report:
    """The report of any number of runs, data set by data set."""
    tables = [verdict_table(runs)]
    for name in dict.fromkeys(run["data_set"] for run in runs):
        tables += _tables(name, [run for run in runs if run["data_set"] == name])
    names = " and ".join(dict.fromkeys(run["data_set"] for run in runs))
    plot = Plot("mean exposure share of the concept", "nDCG@20", curves(runs, PLOTTED))
    seconds = sum(run.get("cpu_s", 0.0) for run in runs)
    told = ("data_set", "seed", "rotation", "users", "ndcg", "concepts")
    # As shown: each concept under each method would be megabytes, which the cells of the benchmark
    # hold.
    figures = {
        "runs": [{name: run[name] for name in told} for run in runs],
        "tables": [table._asdict() for table in tables],
    }
    return Report(
        "frontier",
        f"The steering frontier: {names}",
        command,
        _PARAGRAPHS,
        tables,
        plot,
        figures,
        seconds,
    )


def curves(runs: Sequence[Figures], ways: Sequence[str]) -> list[Curve]:
    """NDCG@20 over the target share, of the absolute targets that every run of the data set has."""
    labels = [label for label in labels_of(runs, "seen") if " x" not in label]
    found = []
    for way in ways:
        points = {
            float(label): estimate
            for label in labels
            if (estimate := joined([figure_of(run, "seen", way, label, "ndcg") for run in runs]))
        }
        if points:
            found.append(Curve(way, list(points), list(points.values())))
    return found


def _tables(name: str, runs: Sequence[Figures]) -> list[Table]:
    users = ", ".join(str(run["users"]) for run in runs)
    seeds = ", ".join(str(run["seed"]) for run in runs)
    unsteered = np.mean([run["ndcg"] for run in runs])
    concepts = len({concept["name"] for run in runs for concept in run["concepts"]})
    of = f"{name} ({users} users, seeds {seeds}, {concepts} concepts, unsteered nDCG@20 {unsteered:.4f})"
    tables = [_seen(of, runs)]
    parts = [part for part in runs[0] if part.startswith("hidden ")]
    tables += [
        _hidden(f"{name}: {float(part.split()[1]):.0%} of the tags hidden", runs, part)
        for part in parts
    ]
    tables.append(_pairs(f"{name}: nDCG@20 of left minus right", runs, ["seen", *parts]))
    if "effects" in runs[0]:
        tables += [_effects(name, runs), _neurons(name, runs)]
    return tables


def _seen(of: str, runs: Sequence[Figures]) -> Table:
    labels = labels_of(runs, "seen")
    rows = []
    for way in _ways(runs, "seen"):
        row: list[object] = [way, _reached(runs, "seen", way)]
        for label in labels:
            row += [
                short(joined([figure_of(run, "seen", way, label, "ndcg") for run in runs])),
                signed(several([minus(run, "seen", way, label, _BOOST) for run in runs])),
            ]
        middle = "0.5" if "0.5" in labels else labels[-1]
        rows.append(
            [*row, short(joined([figure_of(run, "seen", way, middle, "plain") for run in runs]), 2)]
        )
    columns = ["method", "reached"]
    for label in labels:
        columns += [f"at {label}", "minus rank boost"]
    return Table(f"{of}: seen tags", [*columns, "plain share"], rows)


def _hidden(title: str, runs: Sequence[Figures], part: str) -> Table:
    (label,) = labels_of(runs, part)
    rows = [
        [
            way,
            _reached(runs, part, way),
            short(joined([figure_of(run, part, way, label, "hidden") for run in runs]), 2),
            short(joined([figure_of(run, part, way, label, "ndcg") for run in runs])),
            signed(several([minus(run, part, way, label, _BOOST) for run in runs])),
            signed(
                several([minus(run, part, way, label, "dense probe + relevance") for run in runs])
            ),
        ]
        for way in _ways(runs, part)
    ]
    columns = ("method", "reached", "hidden part of oracle's", f"nDCG@20 at {label}")
    return Table(title, (*columns, "minus rank boost", "minus dense probe, relevance"), rows)


def _pairs(title: str, runs: Sequence[Figures], parts: Sequence[str]) -> Table:
    places = [(part, label) for part in parts for label in labels_of(runs, part)]
    names = list(dict.fromkeys(name for run in runs for name in run["seen"]["pairs"]))
    rows = [
        [
            name,
            *(
                signed(several([pair_of(run, part, name, label) for run in runs]))
                for part, label in places
            ),
        ]
        for name in names
    ]
    return Table(title, ("left - right", *(f"{part}, {label}" for part, label in places)), rows)


def _effects(name: str, runs: Sequence[Figures]) -> Table:
    parts = [run["effects"] for run in runs]
    rows = []
    for way in dict.fromkeys(way for part in parts for way in part["suppression"]):
        halved = [part["suppression"].get(way) for part in parts]
        moved = [part["off_target"].get(way) for part in parts]
        pairs = [pair for part in parts for pair in part["together"].get(way, [])]
        both = mean_of([pair["loss"] for pair in pairs])
        apart = mean_of([sum(pair["single_losses"]) for pair in pairs])
        rows.append(
            [
                way,
                signed(several([one["loss"] for one in halved if one])),
                signed(several([one["minus random"] for one in halved if one])),
                short(mean_of([one["moved"] for one in moved if one])),
                short(mean_of([one["over boost"] for one in moved if one]), 2),
                f"{short(both)} of {short(apart)}, {len(pairs)} pairs" if pairs else "-",
            ]
        )
    label = parts[0]["label"]
    columns = (
        "method",
        "nDCG@20 lost, share halved",
        "minus random filter",
        f"others moved, at {label}",
    )
    title = f"{name}: suppression, off-target movement, two at once"
    return Table(
        title, (*columns, "over rank boost's", "lost by two at .3, of both losses alone"), rows
    )


def _neurons(name: str, runs: Sequence[Figures]) -> Table:
    found = [kept for run in runs for kept in run["effects"]["neurons"].values()]
    rows = [
        [str(count), short(mean_of([kept[str(count)] for kept in found]), 2)] for count in COUNTS
    ]
    title = (
        f"{name}: share of the contrast's effect that its largest neurons keep; median for .95: "
    )
    title += neurons_for_most(runs)
    return Table(title, ("neurons", "share"), rows)


def _ways(runs: Sequence[Figures], part: str) -> list[str]:
    return list(dict.fromkeys(way for run in runs for way in run[part]["methods"]))


def _reached(runs: Sequence[Figures], part: str, way: str) -> str:
    cells = [cell for run in runs for cell in run[part]["methods"].get(way, {}).values()]
    return f"{sum(cell['reached'] for cell in cells)} of {sum(cell['asked'] for cell in cells)}"

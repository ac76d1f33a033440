"""The control study's report: figures of several runs joined, data set by data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from training.evaluation.report import Curve, Estimate, Plot, Report, Table
from training.studies.control.halving import LEAST_SHARE
from training.studies.control.hidden_tags import HIDDEN
from training.studies.frontier.figures import data_sets, several, signed

Figures = Mapping[str, Any]
"""The figures that measure returns for a run, or their JSON."""
_SHOWN = 10
"""Concepts whose levels are shown."""
_LEVELS = ("share", "users below 0", "items with", "items without")
_COSTS = ("loss", "random", "over random", "over ADD")
_PARAGRAPHS = (
    "Exposure shares (a place weighs 1 / log2(1 + rank)) and nDCG@20 on the held-out items, of "
    "the top 20 of test users, mode RESIDUAL. ± is the standard error: over users as clusters "
    "within the runs or over the runs, whichever is larger; differences are of the same users and "
    "concepts. Concepts on more than half of the items are left out of all but the first two "
    "tables.",
    f"Halved are the shares of concepts that have at least {LEAST_SHARE:g}. Beside each way "
    "stands what it costs to leave out of each user's list as many of the concept's items at "
    "random, and to fill up with the best items without the concept.",
)


def control_report(runs: Sequence[Figures], command: str) -> Report:
    """Returns the report of any number of runs."""
    sets = data_sets(runs)
    curves = [Curve(name, *_costs(own)) for name, own in sets.items() if "halved" in own[0]]
    return Report(
        name="steering",
        title=f"Steering: {' and '.join(sets)}",
        command=command,
        paragraphs=_PARAGRAPHS,
        tables=[table for name, own in sets.items() for table in _tables(name, own)],
        plot=Plot("", "nDCG@20 lost - by random", curves) if curves else None,
        figures=runs,
    )


def _costs(runs: Sequence[Figures]) -> tuple[list[str], list[Estimate]]:
    """Returns methods and what each costs more than random removal."""
    by_method = {
        method: _joined(_each(runs, "halved", method), "over random")
        for method in runs[0]["halved"]
    }
    known = {method: estimate for method, estimate in by_method.items() if estimate}
    return list(known), list(known.values())


def _tables(name: str, runs: Sequence[Figures]) -> Iterator[Table]:
    users = ", ".join(str(run["users"]) for run in runs)
    seeds = ", ".join(str(run["seed"]) for run in runs)
    yield _operations(f"{name} ({users} test users, seeds {seeds})", runs)
    yield _levels(name, runs)
    if all("halved" in run for run in runs):
        yield _halved(name, runs)
        yield _hidden(name, runs)
        yield _together(name, runs)
        yield _drift(name, runs)
        yield _drift_of_each(name, runs)


def _operations(name: str, runs: Sequence[Figures]) -> Table:
    concepts = sum(len(run["concepts"]) for run in runs)
    rows = []
    for operation in runs[0]["operations"]:
        results = _each(runs, "operations", operation)
        users = sum(one["users with more"] for one in results) / len(results)
        more = sum(one["concepts with more"] for one in results)
        change = signed(_joined(results, "change"))
        ndcg = signed(_joined(results, "ndcg"))
        rows.append([operation, change, f"{users:.0%}", f"{more} of {concepts}", ndcg])
    columns = ("share changed by", "users with more of it", "concepts with more", "nDCG@20")
    strength = runs[0]["strength"]
    title = f"{name}: each concept under each operation, x = {strength:g} TYPICAL"
    return Table(title, ("operation", *columns), rows)


def _levels(name: str, runs: Sequence[Figures]) -> Table:
    operations = list(runs[0]["operations"])
    rows = []
    for concept in list(runs[0]["concepts"])[:_SHOWN]:
        results = [run["concepts"][concept] for run in runs if concept in run["concepts"]]
        means = {key: sum(one[key] for one in results) / len(results) for key in _LEVELS}
        changes = [several([one["change"][name] for one in results]) for name in operations]
        rows.append(
            [
                concept,
                f"{means['share']:.3f}",
                f"{means['users below 0']:.0%}",
                f"{means['items with']:+.2f} / {means['items without']:+.2f}",
                *map(signed, changes),
            ]
        )
    columns = ("concept", "share", "users below level 0", "items' level with / without")
    return Table(f"{name}: levels, and the change of the share", (*columns, *operations), rows)


def _halved(name: str, runs: Sequence[Figures]) -> Table:
    rows = []
    for method in runs[0]["halved"]:
        results = _each(runs, "halved", method)
        shares = [one["left"] for one in results if one["left"] is not None]
        left = f"{sum(shares) / len(shares):.2f}" if shares else "-"
        costs = [signed(_joined(results, key)) for key in _COSTS]
        rows.append([method, _reached(results), left, *costs])
    columns = (
        "way",
        "concepts reached",
        "part of the share left",
        "nDCG@20 lost",
        "by random",
        "minus random's",
        "minus ADD's",
    )
    return Table(f"{name}: shares halved", columns, rows)


def _hidden(name: str, runs: Sequence[Figures]) -> Table:
    rows = []
    for method in runs[0]["hidden"]:
        results = _each(runs, "hidden", method)
        costs = [signed(_joined(results, key)) for key in ("loss", "over ADD")]
        rows.append([method, _reached(results), *costs])
    title = f"{name}: shares of all items halved by ways that do not know {HIDDEN:.0%} of the tags"
    return Table(title, ("way", "concepts reached", "nDCG@20 lost", "minus ADD's"), rows)


def _together(name: str, runs: Sequence[Figures]) -> Table:
    rows = []
    for goal, methods in runs[0]["together"].items():
        for method in methods:
            results = [run["together"][goal][method] for run in runs]
            shorts = [one["short"] for one in results if one["short"] is not None]
            short = f"{max(shorts):.4f}" if shorts else "-"
            costs = [signed(_joined(results, key)) for key in ("loss", "alone", "over alone")]
            rows.append([f"{goal}: {method}", _reached(results), short, *costs])
    columns = (
        "both: way",
        "pairs reached",
        "a share short by at most",
        "nDCG@20 lost",
        "sum of the single losses",
        "minus the sum",
    )
    return Table(f"{name}: two concepts at once", columns, rows)


def _drift(name: str, runs: Sequence[Figures]) -> Table:
    parts = [run["drift"] for run in runs]
    rows = []
    for method in parts[0]["ways"]:
        results = _each(parts, "ways", method)
        moves = [signed(_joined(results, key)) for key in ("moved", "over boost")]
        rows.append([method, str(sum(one["reached"] for one in results)), *moves])
    title = f"{name}: mean |move| of the other concepts' shares while one goes to {_goal(parts)}"
    return Table(title, ("way", "concepts", "others move by", "minus the tag boost's"), rows)


def _drift_of_each(name: str, runs: Sequence[Figures]) -> Table:
    parts = [run["drift"] for run in runs]
    methods = list(parts[0]["ways"])
    rows = []
    for concept in parts[0]["ways"][methods[0]]["concepts"]:
        row = [concept]
        for method in methods:
            moves = [own["concepts"].get(concept) for own in _each(parts, "ways", method)]
            row += _moves([move for move in moves if move])
        rows.append(row)
    columns = [column for method in methods for column in (method, "moves most (first run)")]
    title = f"{name}: the same for each concept brought to {_goal(parts)}"
    return Table(title, ("concept", *columns), rows)


def _moves(known: Sequence[Figures]) -> list[str]:
    """Formats the mean move of the other concepts, and the one that moves most in the first run."""
    mean = signed(_joined(known, "moved"))
    if not known:
        return [mean, "-"]
    other, move = known[0]["furthest"]
    return [mean, f"{other} {move:+.3f}"]


def _goal(parts: Sequence[Figures]) -> str:
    return "its share x 4" if parts[0]["label"] == "4 x" else str(parts[0]["label"])


def _each(runs: Sequence[Figures], part: str, name: str) -> list[Figures]:
    """Returns the figures with a name in a part of each run."""
    return [run[part][name] for run in runs]


def _joined(results: Sequence[Figures], key: str) -> Estimate | None:
    return several([one[key] for one in results])


def _reached(results: Sequence[Figures]) -> str:
    reached = sum(one["reached"] for one in results)
    return f"{reached} of {sum(one['asked'] for one in results)}"

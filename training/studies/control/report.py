"""The command trimtab-evaluate steering: figures of several runs joined, data set by data set."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from training.commandline import add_flags, read_flags
from training.evaluation.report import Curve, Estimate, Plot, Report, Table
from training.run import Run
from training.studies.control.halving import LEAST_SHARE
from training.studies.control.hidden_tags import HIDDEN
from training.studies.control.measure import ControlOptions, measure
from training.studies.frontier.figures import several, signed

Figures = Mapping[str, Any]
"""What measure gives for a run."""
_SHOWN = 10
_PARAGRAPHS = (
    "Exposure shares (a place weighs 1 / log2(1 + rank)) and nDCG@20 on the held-out items, of the top 20 of "
    "test users, mode RESIDUAL. ± is the standard error: over users as clusters within the runs or over the "
    "runs, whichever is larger; differences are of the same users and concepts. Concepts on more than half "
    "of the items are left out of all but the first two tables.",
    f"Halved are the shares of concepts that have at least {LEAST_SHARE:g}. Beside each way stands what it "
    "costs to leave out of each user's list as many of the concept's items at random, and to fill up with "
    "the best items without the concept.",
)


def add_control_flags(parser: argparse.ArgumentParser) -> None:
    """Those of ControlOptions."""
    add_flags(parser, ControlOptions, title="steering")


def measure_control(runs: Sequence[Run], parsed: argparse.Namespace, command: str) -> Report:
    """The parts of each run, joined; says on the console which part of which run it is at."""
    options = read_flags(ControlOptions, parsed)
    with Console(stderr=True).status("steering") as status:
        return control_report([measure(run, options, status.update) for run in runs], command)


def control_report(runs: Sequence[Figures], command: str) -> Report:
    """The report of any number of runs."""
    names = list(dict.fromkeys(run["data_set"] for run in runs))
    sets = {name: [run for run in runs if run["data_set"] == name] for name in names}
    tables = [table for name, own in sets.items() for table in _tables(name, own)]
    curves = [Curve(name, *_costs(own)) for name, own in sets.items() if "halved" in own[0]]
    plot = Plot("", "nDCG@20 lost - by random", curves) if curves else None
    return Report(
        "steering", f"Steering: {' and '.join(names)}", command, _PARAGRAPHS, tables, plot, runs
    )


def _costs(runs: Sequence[Figures]) -> tuple[list[str], list[Estimate]]:
    ways = {
        way: several([run["halved"][way]["over random"] for run in runs])
        for way in runs[0]["halved"]
    }
    known = {way: estimate for way, estimate in ways.items() if estimate}
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


def _operations(of: str, runs: Sequence[Figures]) -> Table:
    rows = []
    for name in runs[0]["operations"]:
        found = [run["operations"][name] for run in runs]
        more = sum(one["concepts with more"] for one in found)
        rows.append(
            [
                name,
                signed(several([one["change"] for one in found])),
                f"{sum(one['users with more'] for one in found) / len(found):.0%}",
                f"{more} of {sum(len(run['concepts']) for run in runs)}",
                signed(several([one["ndcg"] for one in found])),
            ]
        )
    columns = (
        "operation",
        "share changed by",
        "users with more of it",
        "concepts with more",
        "nDCG@20",
    )
    return Table(
        f"{of}: each concept under each operation, x = {runs[0]['strength']:g} TYPICAL",
        columns,
        rows,
    )


def _levels(name: str, runs: Sequence[Figures]) -> Table:
    operations = list(runs[0]["operations"])
    rows = []
    for concept in list(runs[0]["concepts"])[:_SHOWN]:
        found = [run["concepts"][concept] for run in runs if concept in run["concepts"]]
        means = {key: sum(one[key] for one in found) / len(found) for key in _LEVELS}
        changes = [several([one["change"][operation] for one in found]) for operation in operations]
        rows.append(
            [
                concept,
                f"{means['share']:.3f}",
                f"{means['users below 0']:.0%}",
                f"{means['items with']:+.2f} / {means['items without']:+.2f}",
                *map(signed, changes),
            ]
        )
    columns = (
        "concept",
        "share",
        "users below level 0",
        "items' level with / without",
        *operations,
    )
    return Table(f"{name}: levels, and the change of the share", columns, rows)


_LEVELS = ("share", "users below 0", "items with", "items without")


def _halved(name: str, runs: Sequence[Figures]) -> Table:
    rows = []
    for way in runs[0]["halved"]:
        found = [run["halved"][way] for run in runs]
        left = [one["left"] for one in found if one["left"] is not None]
        rows.append(
            [way, _reached(found), f"{sum(left) / len(left):.2f}" if left else "-"]
            + [signed(several([one[key] for one in found])) for key in _COSTS]
        )
    columns = (
        "way",
        "concepts reached",
        "part of the share left",
        "nDCG@20 lost",
        "by random",
        "minus random's",
    )
    return Table(f"{name}: shares halved", (*columns, "minus ADD's"), rows)


_COSTS = ("loss", "random", "over random", "over ADD")


def _hidden(name: str, runs: Sequence[Figures]) -> Table:
    rows = []
    for way in runs[0]["hidden"]:
        found = [run["hidden"][way] for run in runs]
        costs = [signed(several([one[key] for one in found])) for key in ("loss", "over ADD")]
        rows.append([way, _reached(found), *costs])
    title = f"{name}: shares of all items halved by ways that do not know {HIDDEN:.0%} of the tags"
    return Table(title, ("way", "concepts reached", "nDCG@20 lost", "minus ADD's"), rows)


def _together(name: str, runs: Sequence[Figures]) -> Table:
    rows = []
    for goal, ways in runs[0]["together"].items():
        for way in ways:
            found = [run["together"][goal][way] for run in runs]
            short = [one["short"] for one in found if one["short"] is not None]
            rows.append(
                [f"{goal}: {way}", _reached(found), f"{max(short):.4f}" if short else "-"]
                + [
                    signed(several([one[key] for one in found]))
                    for key in ("loss", "alone", "over alone")
                ]
            )
    columns = (
        "both: way",
        "pairs reached",
        "a share short by at most",
        "nDCG@20 lost",
        "sum of the single losses",
    )
    return Table(f"{name}: two concepts at once", (*columns, "minus the sum"), rows)


def _drift(name: str, runs: Sequence[Figures]) -> Table:
    parts = [run["drift"] for run in runs]
    rows = []
    for way in parts[0]["ways"]:
        found = [part["ways"][way] for part in parts]
        rows.append(
            [way, str(sum(one["reached"] for one in found))]
            + [signed(several([one[key] for one in found])) for key in ("moved", "over boost")]
        )
    title = f"{name}: mean |move| of the other concepts' shares while one goes to {_goal(parts)}"
    return Table(title, ("way", "concepts", "others move by", "minus the tag boost's"), rows)


def _drift_of_each(name: str, runs: Sequence[Figures]) -> Table:
    parts = [run["drift"]["ways"] for run in runs]
    ways = list(parts[0])
    rows = []
    for concept in list(parts[0][ways[0]]["concepts"]):
        row: list[object] = [concept]
        for way in ways:
            found = [part[way]["concepts"].get(concept) for part in parts]
            known = [one for one in found if one]
            other, move = known[0]["furthest"] if known else ("-", 0.0)
            row += [
                signed(several([one["moved"] for one in known])),
                f"{other} {move:+.3f}" if known else "-",
            ]
        rows.append(row)
    columns = [column for way in ways for column in (way, "moves most (first run)")]
    title = f"{name}: the same for each concept brought to {_goal([run['drift'] for run in runs])}"
    return Table(title, ("concept", *columns), rows)


def _goal(parts: Sequence[Figures]) -> str:
    return "its share x 4" if parts[0]["label"] == "4 x" else str(parts[0]["label"])


def _reached(found: Sequence[Figures]) -> str:
    return f"{sum(one['reached'] for one in found)} of {sum(one['asked'] for one in found)}"

"""Defines a reproduction: how its runs are trained, what is measured of each, and its report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from training.arrays import Ints
from training.concepts.membership import Membership, memberships
from training.errors import DataError
from training.evaluation.report import Curve, Estimate, Picture, Plot, Table
from training.run import Run


@dataclass(frozen=True)
class Findings:
    """The figures of one run of one setting on one data set, with its number of test users."""

    data_set: str
    setting: str
    seed: int
    users: int
    figures: dict[str, Any]


Groups = Mapping[tuple[str, str], Sequence[Findings]]
"""Findings by data set and setting, one for each seed."""


class Parts(NamedTuple):
    """The tables, plot and pictures of a report."""

    tables: Sequence[Table]
    plot: Plot | None
    pictures: Sequence[Picture] = ()


class Paper(NamedTuple):
    """A paper: its title and arXiv number, and how its setting is run here.

    settings holds, by name, the flags of trimtab-train for it, before the caller's own. measure
    returns the figures of a run on some of its test users. differs is a Markdown list of
    differences from the paper.
    """

    title: str
    source: str
    settings: Mapping[str, Sequence[str]]
    measure: Callable[[Run, Ints], dict[str, Any]]
    parts: Callable[[Groups], Parts]
    differs: str
    least_users: int = 1


def tagged(run: Run, purpose: str) -> Membership:
    """Returns the membership of items in attribute values.

    Raises:
        DataError: there are none, naming what they are for.
    """
    members = memberships(run.catalogue, run.config.concepts)
    if not members.names:
        raise DataError(f"{run.path}: no attribute value is on enough items, {purpose}")
    return members


def caption(findings: Sequence[Findings]) -> str:
    """Formats data set, setting, users and seeds of a table."""
    one = findings[0]
    seeds = ", ".join(str(each.seed) for each in findings)
    return f"{one.data_set}, {one.setting}: {one.users} test users a seed, seeds {seeds}"


def joined(findings: Sequence[Findings], *path: str) -> Estimate:
    """Returns the mean over the seeds at a path of the figures.

    Its error is the larger of the standard error over the seeds, which two or three seeds estimate
    badly, and that over the users of all seeds.
    """
    runs = [_at(one.figures, path) for one in findings]
    mean = Estimate.joined(runs).mean
    over_seeds = Estimate.joined(runs).error
    errors = [run.error for run in runs if run.error is not None]
    if len(errors) < len(runs):
        return Estimate(mean, over_seeds)
    return Estimate(mean, max(over_seeds or 0.0, math.hypot(*errors) / len(runs)))


def shown(findings: Sequence[Findings], *path: str, form: str = ".3f") -> str:
    """Formats the joined figure, "-" where it is not a number."""
    estimate = joined(findings, *path)
    return "-" if math.isnan(estimate.mean) else f"{estimate:{form}}"


def curve(
    name: str,
    findings: Sequence[Findings],
    path: Sequence[str],
    keys: Iterable[str],
    x: str,
    y: str,
) -> Curve:
    """Returns the figure y over the figure x at each key under a path of the figures."""
    keys = list(keys)
    across = [joined(findings, *path, key, x).mean for key in keys]
    return Curve(name, across, [joined(findings, *path, key, y) for key in keys])


def _at(figures: Any, path: Sequence[str]) -> Estimate:
    for key in path:
        figures = figures[key]
    estimate: Estimate = figures
    return estimate

"""Figures of several runs of one data set, joined: what tables are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluation.report import Estimate

Figures = Mapping[str, Any]
"""What measure gives for a run."""


def several(found: Sequence[Mapping[str, float] | None]) -> Estimate | None:
    """The mean of the runs' differences; the larger of the errors within and between the runs."""
    known = [one for one in found if one]
    if not known:
        return None
    within = math.sqrt(sum(one["error"] ** 2 for one in known)) / len(known)
    between = Estimate.of([one["mean"] for one in known])
    return Estimate(between.mean, max(within, between.error or 0.0))


def signed(estimate: Estimate | None) -> str:
    """A difference with its sign and error."""
    return "-" if estimate is None else f"{estimate.mean:+.4f} ± {estimate.error:.4f}"


def labels_of(runs: Sequence[Figures], part: str) -> list[str]:
    """The targets of a part, those in shares of the list first."""
    labels = {label for run in runs for label in run[part]["common"]}
    return sorted(labels, key=lambda label: (" x" in label, label))


def cell_of(run: Figures, part: str, way: str, label: str) -> Mapping[str, Any]:
    """All of a method at a target; empty where there is nothing."""
    found: Mapping[str, Any] = run[part]["methods"].get(way, {}).get(label, {})
    return found


def figure_of(run: Figures, part: str, way: str, label: str, figure: str) -> float | None:
    """One figure of it."""
    value: float | None = cell_of(run, part, way, label).get(figure)
    return value


def minus(
    run: Figures, part: str, way: str, label: str, reference: str
) -> Mapping[str, float] | None:
    """The method's nDCG@20 minus that of a reference."""
    found: Mapping[str, float] | None = (
        cell_of(run, part, way, label).get("minus", {}).get(reference)
    )
    return found


def pair_of(run: Figures, part: str, name: str, label: str) -> Mapping[str, float] | None:
    """The difference of the two methods of a pair."""
    found: Mapping[str, float] | None = run[part]["pairs"].get(name, {}).get(label)
    return found


def joined(values: Sequence[float | None]) -> Estimate | None:
    """A figure's mean over the runs; None unless every run has it."""
    return None if None in values else mean_of(values)


def mean_of(values: Sequence[float | None]) -> Estimate | None:
    """The mean of what there is."""
    known = [value for value in values if value is not None]
    return Estimate.of(known) if known else None


def short(estimate: Estimate | None, places: int = 4) -> str:
    """The mean alone."""
    return "-" if estimate is None else f"{estimate.mean:.{places}f}"

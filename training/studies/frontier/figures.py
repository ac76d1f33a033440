"""Figures of several runs of one data set, read and joined for the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from training.evaluation.report import Estimate
from training.studies.frontier.method_ids import Comparison, Variant

Figures = Mapping[str, Any]
"""The figures that measure returns for a run, or their JSON: variants and comparisons are keyed by
their titles."""
SEEN = "seen"
"""The part of the figures in which no tag is hidden."""
_HIDDEN = "hidden "


class Place(NamedTuple):
    """A variant, by its title or itself, at the target with a label, in a part of the figures."""

    part: str
    variant: Variant | str
    label: str


def several(differences: Sequence[Mapping[str, float] | None]) -> Estimate | None:
    """Joins the runs' differences: their mean, and the larger of the errors within and between."""
    known = [one for one in differences if one]
    if not known:
        return None
    within = math.sqrt(sum(one["error"] ** 2 for one in known)) / len(known)
    between = Estimate.of([one["mean"] for one in known])
    return Estimate(between.mean, max(within, between.error or 0.0))


def signed(estimate: Estimate | None) -> str:
    """Formats a difference with its sign and error."""
    return "-" if estimate is None else f"{estimate.mean:+.4f} ± {estimate.error:.4f}"


def short(estimate: Estimate | None, places: int = 4) -> str:
    """Formats the mean alone."""
    return "-" if estimate is None else f"{estimate.mean:.{places}f}"


def data_sets(runs: Sequence[Figures]) -> dict[str, list[Figures]]:
    """Returns the runs by their data set, in the order of the runs."""
    sets: dict[str, list[Figures]] = {}
    for run in runs:
        sets.setdefault(run["data_set"], []).append(run)
    return sets


def hidden_parts(run: Figures) -> list[str]:
    """Returns the names of the parts with hidden tags."""
    return [part for part in run if part.startswith(_HIDDEN)]


def hidden_share(part: str) -> str:
    """Formats the share of the tags that a part hides."""
    return f"{float(part.removeprefix(_HIDDEN)):.0%}"


def labels_of(runs: Sequence[Figures], part: str) -> list[str]:
    """Returns the targets of a part, those in shares of the list first."""
    labels = {label for run in runs for label in run[part]["common"]}
    return sorted(labels, key=lambda label: (" x" in label, label))


def cell_of(run: Figures, place: Place) -> Mapping[str, Any]:
    """Returns the figures of a variant at a target; empty if it was not measured."""
    cells = run[place.part]["methods"].get(str(place.variant), {})
    cell: Mapping[str, Any] = cells.get(place.label, {})
    return cell


def figures_of(runs: Sequence[Figures], place: Place, figure: str) -> list[float | None]:
    """Returns one figure of each run."""
    return [cell_of(run, place).get(figure) for run in runs]


def minus(runs: Sequence[Figures], place: Place, reference: Variant) -> Estimate | None:
    """Joins the runs' differences in nDCG@20 from a reference."""
    return several([cell_of(run, place).get("minus", {}).get(str(reference)) for run in runs])


def compared(
    runs: Sequence[Figures], part: str, comparison: Comparison | str, label: str
) -> Estimate | None:
    """Joins the runs' differences between the two variants of a comparison."""
    pairs = [run[part]["pairs"].get(str(comparison), {}) for run in runs]
    return several([pair.get(label) for pair in pairs])


def joined(values: Sequence[float | None]) -> Estimate | None:
    """Returns a figure's mean over the runs; None unless every run has it."""
    return None if None in values else mean_of(values)


def mean_of(values: Sequence[float | None]) -> Estimate | None:
    """Returns the mean of the values that are not None."""
    known = [value for value in values if value is not None]
    return Estimate.of(known) if known else None

"""The report's first table: the goals of steering on the frontier, and whether it met them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from training.evaluation.report import Estimate, Table
from training.studies.frontier.effects import COUNTS
from training.studies.frontier.figures import (
    SEEN,
    Figures,
    Place,
    cell_of,
    compared,
    data_sets,
    figures_of,
    hidden_parts,
    hidden_share,
    labels_of,
    mean_of,
    minus,
    signed,
)
from training.studies.frontier.method_ids import Base, Comparison, MethodId, Variant

_BOOST = MethodId.TAG_BOOST.on(Base.RANK)
_PROBES = (MethodId.DENSE_PROBE.on(Base.RANK), MethodId.DENSE_PROBE.on(Base.RELEVANCE))
_ON_SEEN = (
    MethodId.BOOST.on(Base.PLACES),
    MethodId.BOOST_BY_GAINS.on(Base.PLACES),
    MethodId.TARGET_SHARE.on(Base.SCORE),
    MethodId.TARGET_SHARE_LIFT_ALONE.on(Base.SCORE),
    MethodId.CONTRAST.on(Base.SCORE),
    MethodId.TAG_BOOST.on(Base.RELEVANCE),
    MethodId.IMPUTED_TAGS.on(Base.RELEVANCE),
    MethodId.FILLED_TAGS.on(Base.RELEVANCE),
)
_ON_HIDDEN = (
    MethodId.BOOST.on(Base.PLACES),
    MethodId.BOOST_BY_GAINS.on(Base.PLACES),
    MethodId.TARGET_SHARE.on(Base.SCORE),
    MethodId.CONTRAST.on(Base.RANK),
    MethodId.FILLED_TAGS.on(Base.RELEVANCE),
    MethodId.COMPLETED_TAGS_Z.on(Base.RELEVANCE),
    MethodId.RIDGE_ON_Z.on(Base.RELEVANCE),
)
_COMPARISONS = (
    Comparison(MethodId.CONTRAST.on(Base.SCORE), MethodId.CONTRAST_UNTRAINED_SAE.on(Base.SCORE)),
    Comparison(MethodId.CONTRAST.on(Base.SCORE), MethodId.DIFFERENCE_OF_MEANS.on(Base.SCORE)),
    Comparison(
        MethodId.RIDGE_ON_CODES.on(Base.RELEVANCE),
        MethodId.RIDGE_ON_UNTRAINED_CODES.on(Base.RELEVANCE),
    ),
    Comparison(MethodId.RIDGE_ON_CODES.on(Base.RELEVANCE), MethodId.RIDGE_ON_Z.on(Base.RELEVANCE)),
)
_ENOUGH = 0.95
"""Share of the contrast's effect that its largest neurons must keep to be counted as enough."""
_HIDDEN_PART = 0.9
"""Part of the oracle's hidden exposure that a method must reach."""
_LOST = 0.01
"""Relative nDCG@20 that a method may lose against the better dense probe."""
TITLE = (
    "What was asked for, in nDCG@20 at equal shares. Seen tags: minus rank boost, met if at "
    "least 0 at every target. Hidden tags: relative to the better dense probe, met if at least "
    f"-{_LOST:.0%}, with {_HIDDEN_PART:g} or more of the oracle's hidden part. Both within two "
    "standard errors. Requests get boost + places by BOOST (by gains where the bundle has "
    "gains), contrast + score by ADD, target share + score by a target share"
)


def verdict_table(runs: Sequence[Figures]) -> Table:
    """Returns the table with a row for each goal and a column for each data set."""
    sets = data_sets(runs)
    rows: dict[str, Callable[[Sequence[Figures]], str]] = {}
    rows |= {f"seen: {variant}": partial(_seen, variant=variant) for variant in _ON_SEEN}
    for part in hidden_parts(runs[0]):
        rows |= {
            f"{hidden_share(part)} hidden: {variant}": partial(_hidden, part=part, variant=variant)
            for variant in _ON_HIDDEN
        }
    rows |= {str(pair): partial(_compared, comparison=pair) for pair in _COMPARISONS}
    rows[f"neurons for {_ENOUGH:.0%} of the contrast's effect"] = neurons_for_most
    table = [[title, *map(verdict, sets.values())] for title, verdict in rows.items()]
    return Table(TITLE, ("", *sets), table)


def neurons_for_most(runs: Sequence[Figures]) -> str:
    """Formats the number of neurons that keep most of the contrast's effect.

    The median over the concepts; "-" if it was not measured.
    """
    measured = [run for run in runs if "effects" in run]
    kept = [own for run in measured for own in run["effects"]["neurons"].values()]
    enough = [next((c for c in COUNTS if own[str(c)] >= _ENOUGH), math.inf) for own in kept]
    return f"{np.median(enough):g}" if enough else "-"


def _seen(runs: Sequence[Figures], variant: Variant) -> str:
    differences = {
        label: minus(runs, Place(SEEN, variant, label), _BOOST) for label in labels_of(runs, SEEN)
    }
    known = {label: estimate for label, estimate in differences.items() if estimate}
    text = ", ".join(f"{label}: {signed(estimate)}" for label, estimate in known.items())
    return f"{text}: {_verdict(all(_reaches(estimate, 0.0) for estimate in known.values()))}"


def _hidden(runs: Sequence[Figures], part: str, variant: Variant) -> str:
    (label,) = labels_of(runs, part)
    place = Place(part, variant, label)
    lost = min(_relative(runs, place), key=lambda estimate: estimate.mean, default=None)
    exposed = mean_of(figures_of(runs, place, "hidden"))
    if lost is None or exposed is None:
        return "not reached"
    met = _reaches(lost, -_LOST) and _reaches(exposed, _HIDDEN_PART)
    return f"{lost.mean:+.1%} ± {lost.error:.1%}, hidden part {exposed.mean:.2f}: {_verdict(met)}"


def _relative(runs: Sequence[Figures], place: Place) -> Iterator[Estimate]:
    """Yields the nDCG relative to each probe's, over the concepts that both reach."""
    for probe in _PROBES:
        difference = minus(runs, place, probe)
        levels = [
            ndcg
            for run in runs
            for name, (ndcg, *_) in _concepts(run, place._replace(variant=probe)).items()
            if name in _concepts(run, place)
        ]
        if difference and difference.error is not None:
            level = float(np.mean(levels))
            yield Estimate(difference.mean / level, difference.error / level)


def _concepts(run: Figures, place: Place) -> dict[str, list[float]]:
    concepts: dict[str, list[float]] = cell_of(run, place).get("concepts", {})
    return concepts


def _compared(runs: Sequence[Figures], comparison: Comparison) -> str:
    """Formats a comparison at 0.5 or else the largest target that both reach; then hidden tags."""
    labels = labels_of(runs, SEEN)
    tried = [label for label in labels if label == "0.5"] + labels[::-1]
    seen = {f"seen, {label}": compared(runs, SEEN, comparison, label) for label in tried}
    hidden = {
        hidden_share(part): compared(runs, part, comparison, labels_of(runs, part)[0])
        for part in hidden_parts(runs[0])
    }
    texts = [
        [f"{place}: {signed(estimate)}" for place, estimate in estimates.items() if estimate]
        for estimates in (seen, hidden)
    ]
    return ", ".join(texts[0][:1] + texts[1]) or "not reached"


def _reaches(estimate: Estimate, goal: float) -> bool:
    return estimate.mean + 2 * (estimate.error or 0.0) >= goal


def _verdict(met: bool) -> str:
    return "met" if met else "missed"

"""What steering had to show on the frontier, and whether it did: one table, the report's first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from training.evaluation.report import Estimate, Table
from training.studies.frontier.effects import COUNTS
from training.studies.frontier.figures import (
    Figures,
    cell_of,
    labels_of,
    mean_of,
    minus,
    pair_of,
    several,
    signed,
)

_BOOST = "tag boost + rank"
_PROBES = ("dense probe + rank", "dense probe + relevance")
_SEEN = (
    "boost + places",
    "boost by gains + places",
    "target share + score",
    "target share, lift alone + score",
    "contrast + score",
    "tag boost + relevance",
    "imputed tags + relevance",
    "filled tags + relevance",
)
_HIDDEN = (
    "boost + places",
    "boost by gains + places",
    "target share + score",
    "contrast + rank",
    "filled tags + relevance",
    "completed tags, z + relevance",
    "ridge on z + relevance",
)
_NEURONS = (
    "contrast + score - contrast, untrained SAE + score",
    "contrast + score - difference of means + score",
    "ridge on codes + relevance - ridge on untrained codes + relevance",
    "ridge on codes + relevance - ridge on z + relevance",
)
_ENOUGH = 0.95
_HIDDEN_PART = 0.9
_LOST = 0.01
TITLE = (
    "What was asked for, in nDCG@20 at equal shares. Seen tags: minus rank boost, met if at least 0 at every "
    f"target. Hidden tags: relative to the better dense probe, met if at least -{_LOST:.0%}, with "
    f"{_HIDDEN_PART:g} or more of the oracle's hidden part. Both within two standard errors. ShareRequests get "
    "boost + places by BOOST (by gains where the bundle has gains), contrast + score by ADD, target share + "
    "score by a target share"
)


def verdict_table(runs: Sequence[Figures]) -> Table:
    """Rows are what was asked for, columns the data sets."""
    sets = {name: [run for run in runs if run["data_set"] == name] for name in _names(runs)}
    rows: dict[str, Callable[[Sequence[Figures]], str]] = {}
    rows |= {f"seen: {way}": partial(_seen, way=way) for way in _SEEN}
    for part in _hidden_parts(runs[0]):
        rows |= {
            f"{_share(part)} hidden: {way}": partial(_hidden, part=part, way=way) for way in _HIDDEN
        }
    rows |= {name: partial(_apart, name=name) for name in _NEURONS}
    rows[f"neurons for {_ENOUGH:.0%} of the contrast's effect"] = neurons_for_most
    return Table(
        TITLE, ("", *sets), [[title, *map(told, sets.values())] for title, told in rows.items()]
    )


def neurons_for_most(runs: Sequence[Figures]) -> str:
    """How many neurons keep most of the contrast's effect, the median over concepts; "-" if not measured."""
    found = [
        kept for run in runs if "effects" in run for kept in run["effects"]["neurons"].values()
    ]
    enough = [next((c for c in COUNTS if kept[str(c)] >= _ENOUGH), math.inf) for kept in found]
    return f"{np.median(enough):g}" if enough else "-"


def _seen(runs: Sequence[Figures], way: str) -> str:
    found = {
        label: several([minus(run, "seen", way, label, _BOOST) for run in runs])
        for label in labels_of(runs, "seen")
    }
    known = {label: estimate for label, estimate in found.items() if estimate}
    told = ", ".join(f"{label}: {signed(estimate)}" for label, estimate in known.items())
    return f"{told}: {_verdict(all(_reaches(estimate, 0.0) for estimate in known.values()))}"


def _hidden(runs: Sequence[Figures], part: str, way: str) -> str:
    (label,) = labels_of(runs, part)
    lost = min(_relative(runs, part, way, label), key=lambda estimate: estimate.mean, default=None)
    shown = mean_of([cell_of(run, part, way, label).get("hidden") for run in runs])
    if lost is None or shown is None:
        return "not reached"
    met = _reaches(lost, -_LOST) and _reaches(shown, _HIDDEN_PART)
    return f"{lost.mean:+.1%} ± {lost.error:.1%}, hidden part {shown.mean:.2f}: {_verdict(met)}"


def _relative(runs: Sequence[Figures], part: str, way: str, label: str) -> Iterator[Estimate]:
    """The way's nDCG relative to each probe's, over the concepts that both reach."""
    for probe in _PROBES:
        difference = several([minus(run, part, way, label, probe) for run in runs])
        levels = [
            ndcg
            for run in runs
            for name, (ndcg, *_) in cell_of(run, part, probe, label).get("concepts", {}).items()
            if name in cell_of(run, part, way, label).get("concepts", {})
        ]
        if difference and difference.error is not None:
            level = float(np.mean(levels))
            yield Estimate(difference.mean / level, difference.error / level)


def _apart(runs: Sequence[Figures], name: str) -> str:
    """At .5 where a concept goes there by both, else at the largest target; then with tags hidden."""
    labels = labels_of(runs, "seen")
    tried = [label for label in labels if label == "0.5"] + labels[::-1]
    seen = [
        (f"seen, {label}", found) for label in tried if (found := _pair(runs, "seen", name, label))
    ]
    hidden = [
        (_share(part), found)
        for part in _hidden_parts(runs[0])
        if (found := _pair(runs, part, name, labels_of(runs, part)[0]))
    ]
    return (
        ", ".join(f"{place}: {signed(found)}" for place, found in seen[:1] + hidden)
        or "not reached"
    )


def _pair(runs: Sequence[Figures], part: str, name: str, label: str) -> Estimate | None:
    return several([pair_of(run, part, name, label) for run in runs])


def _reaches(estimate: Estimate, bar: float) -> bool:
    return estimate.mean + 2 * (estimate.error or 0.0) >= bar


def _verdict(met: bool) -> str:
    return "met" if met else "missed"


def _names(runs: Sequence[Figures]) -> list[str]:
    return list(dict.fromkeys(run["data_set"] for run in runs))


def _hidden_parts(run: Figures) -> list[str]:
    return [part for part in run if part.startswith("hidden ")]


def _share(part: str) -> str:
    return f"{float(part.removeprefix('hidden ')):.0%}"

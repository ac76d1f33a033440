"""The frontier's report: figures of several runs as tables with error bars, and as curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.evaluation.report import Curve, Plot, Report, Table
from training.studies.frontier.effects import COUNTS
from training.studies.frontier.figures import (
    SEEN,
    Figures,
    Place,
    compared,
    data_sets,
    figures_of,
    hidden_parts,
    hidden_share,
    joined,
    labels_of,
    mean_of,
    minus,
    several,
    short,
    signed,
)
from training.studies.frontier.method_ids import Base, MethodId, Variant
from training.studies.frontier.verdicts import neurons_for_most, verdict_table

PLOTTED = (
    MethodId.BOOST.on(Base.PLACES),
    MethodId.TARGET_SHARE.on(Base.SCORE),
    MethodId.TAG_BOOST.on(Base.SCORE),
    MethodId.TAG_BOOST.on(Base.RANK),
    MethodId.TAG_BOOST.on(Base.RELEVANCE),
    MethodId.IMPUTED_TAGS.on(Base.RELEVANCE),
    MethodId.FILLED_TAGS.on(Base.RELEVANCE),
    MethodId.RIDGE_ON_Z.on(Base.RELEVANCE),
    MethodId.PROBE_AND_TAG_Z.on(Base.RELEVANCE),
    MethodId.DENSE_PROBE.on(Base.RANK),
    MethodId.CONTRAST.on(Base.SCORE),
    MethodId.CONTRAST_UNTRAINED_SAE.on(Base.SCORE),
    MethodId.BLEND_5_NEURONS.on(Base.SCORE),
)
_BOOST = MethodId.TAG_BOOST.on(Base.RANK)
_PROBE = MethodId.DENSE_PROBE.on(Base.RELEVANCE)
_KEPT = ("data_set", "seed", "rotation", "users", "ndcg", "concepts")
_PARAGRAPHS = (
    "One strength for each concept and method, such that the mean exposure share (a place weighs "
    "1 / log2(1 + rank)) of the test users' lists is the target; nDCG@20 there, on the users' "
    "held-out items. The strength is solved on the judged users' own lists, which involves no "
    "held-out item. Targets are 0.3, 0.5 and 0.7 for concepts of at least 60 items that could "
    "fill 0.9 of the lists, else 2 and 4 times the unsteered share.",
    "A method's name ends with what its gain is added to: score (over scale(z)), rank (1 / log2(1 "
    "+ unsteered rank)), places (the same as a function of the score, as the service has it) or "
    "relevance (how likely an item of this rank is wanted, by the length of the history, learned "
    "from validation users). Means are over the concepts that all those methods reach which reach "
    "at least 0.9 of them; differences, of the same users, are over the concepts that both "
    "methods reach.",
    "± is the standard error: over users as clusters within the runs or over the runs, whichever "
    "is larger.",
)


def frontier_report(runs: Sequence[Figures], command: str) -> Report:
    """Returns the report of any number of runs, data set by data set."""
    sets = data_sets(runs)
    tables = [verdict_table(runs)]
    for name, own in sets.items():
        tables += _tables(name, own)
    # The figures are those shown: each concept under each method would be megabytes, which the
    # benchmark keeps in its cells.
    figures = {
        "runs": [{name: run[name] for name in _KEPT} for run in runs],
        "tables": [table._asdict() for table in tables],
    }
    return Report(
        name="frontier",
        title=f"The steering frontier: {' and '.join(sets)}",
        command=command,
        paragraphs=_PARAGRAPHS,
        tables=tables,
        plot=Plot("mean exposure share of the concept", "nDCG@20", curves(runs, PLOTTED)),
        figures=figures,
        seconds=sum(run.get("cpu_s", 0.0) for run in runs),
    )


def curves(runs: Sequence[Figures], variants: Sequence[Variant]) -> list[Curve]:
    """Returns nDCG@20 over the target share, for the absolute targets that every run has."""
    labels = [label for label in labels_of(runs, SEEN) if " x" not in label]
    curves = []
    for variant in variants:
        estimates = {
            float(label): joined(figures_of(runs, Place(SEEN, variant, label), "ndcg"))
            for label in labels
        }
        points = {target: estimate for target, estimate in estimates.items() if estimate}
        if points:
            curves.append(Curve(str(variant), list(points), list(points.values())))
    return curves


def _tables(name: str, runs: Sequence[Figures]) -> list[Table]:
    users = ", ".join(str(run["users"]) for run in runs)
    seeds = ", ".join(str(run["seed"]) for run in runs)
    ndcg = np.mean([run["ndcg"] for run in runs])
    concepts = len({concept["name"] for run in runs for concept in run["concepts"]})
    about = f"{users} users, seeds {seeds}, {concepts} concepts, unsteered nDCG@20 {ndcg:.4f}"
    parts = hidden_parts(runs[0])
    tables = [_seen(f"{name} ({about})", runs)]
    tables += [
        _hidden(f"{name}: {hidden_share(part)} of the tags hidden", runs, part) for part in parts
    ]
    tables.append(_pairs(f"{name}: nDCG@20 of left minus right", runs, [SEEN, *parts]))
    if "effects" in runs[0]:
        tables += [_effects(name, runs), _neurons(name, runs)]
    return tables


def _seen(title: str, runs: Sequence[Figures]) -> Table:
    labels = labels_of(runs, SEEN)
    middle = "0.5" if "0.5" in labels else labels[-1]
    rows = []
    for variant in _variants(runs, SEEN):
        row: list[object] = [variant, _reached(runs, SEEN, variant)]
        for label in labels:
            place = Place(SEEN, variant, label)
            row.append(short(joined(figures_of(runs, place, "ndcg"))))
            row.append(signed(minus(runs, place, _BOOST)))
        row.append(short(joined(figures_of(runs, Place(SEEN, variant, middle), "plain")), 2))
        rows.append(row)
    columns = ["method", "reached"]
    for label in labels:
        columns += [f"at {label}", "minus rank boost"]
    return Table(f"{title}: seen tags", [*columns, "plain share"], rows)


def _hidden(title: str, runs: Sequence[Figures], part: str) -> Table:
    (label,) = labels_of(runs, part)
    rows = []
    for variant in _variants(runs, part):
        place = Place(part, variant, label)
        rows.append(
            [
                variant,
                _reached(runs, part, variant),
                short(joined(figures_of(runs, place, "hidden")), 2),
                short(joined(figures_of(runs, place, "ndcg"))),
                signed(minus(runs, place, _BOOST)),
                signed(minus(runs, place, _PROBE)),
            ]
        )
    columns = ("method", "reached", "hidden part of oracle's", f"nDCG@20 at {label}")
    return Table(title, (*columns, "minus rank boost", "minus dense probe, relevance"), rows)


def _pairs(title: str, runs: Sequence[Figures], parts: Sequence[str]) -> Table:
    places = [(part, label) for part in parts for label in labels_of(runs, part)]
    names = dict.fromkeys(name for run in runs for name in run[SEEN]["pairs"])
    rows = [
        [name, *(signed(compared(runs, part, name, label)) for part, label in places)]
        for name in names
    ]
    return Table(title, ("left - right", *(f"{part}, {label}" for part, label in places)), rows)


def _effects(name: str, runs: Sequence[Figures]) -> Table:
    parts = [run["effects"] for run in runs]
    variants = dict.fromkeys(variant for part in parts for variant in part["suppression"])
    rows = [_effects_row(parts, variant) for variant in variants]
    columns = (
        "method",
        "nDCG@20 lost, share halved",
        "minus random filter",
        f"others moved, at {parts[0]['label']}",
        "over rank boost's",
        "lost by two at .3, of both losses alone",
    )
    return Table(f"{name}: suppression, off-target movement, two at once", columns, rows)


def _effects_row(parts: Sequence[Figures], variant: str) -> list[str]:
    halved = [part["suppression"].get(variant, {}) for part in parts]
    moved = [part["off_target"].get(variant, {}) for part in parts]
    pairs = [pair for part in parts for pair in part["together"].get(variant, [])]
    return [
        variant,
        signed(several([one.get("loss") for one in halved])),
        signed(several([one.get("minus random") for one in halved])),
        short(mean_of([one.get("moved") for one in moved])),
        short(mean_of([one.get("over boost") for one in moved]), 2),
        _pair_losses(pairs),
    ]


def _pair_losses(pairs: Sequence[Figures]) -> str:
    if not pairs:
        return "-"
    both = mean_of([pair["loss"] for pair in pairs])
    apart = mean_of([sum(pair["single_losses"]) for pair in pairs])
    return f"{short(both)} of {short(apart)}, {len(pairs)} pairs"


def _neurons(name: str, runs: Sequence[Figures]) -> Table:
    kept = [own for run in runs for own in run["effects"]["neurons"].values()]
    rows = [[str(count), short(mean_of([own[str(count)] for own in kept]), 2)] for count in COUNTS]
    title = (
        f"{name}: share of the contrast's effect that its largest neurons keep; median for .95: "
    )
    return Table(title + neurons_for_most(runs), ("neurons", "share"), rows)


def _variants(runs: Sequence[Figures], part: str) -> list[str]:
    """Returns the titles of all variants that any run measured."""
    return list(dict.fromkeys(variant for run in runs for variant in run[part]["methods"]))


def _reached(runs: Sequence[Figures], part: str, variant: str) -> str:
    cells = [cell for run in runs for cell in run[part]["methods"].get(variant, {}).values()]
    return f"{sum(cell['reached'] for cell in cells)} of {sum(cell['asked'] for cell in cells)}"

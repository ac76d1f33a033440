"""All parts of the frontier of one run, as plain figures that can be joined with other runs'."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.arrays import Doubles
from training.errors import ConfigError
from training.options import options
from training.run import Run
from training.studies.frontier.audience import Audience, Users
from training.studies.frontier.cells import Cell, Cells, Setting, VariantCells, frontier
from training.studies.frontier.effects import (
    RANDOM,
    amplify,
    amplify_pairs,
    neurons_needed,
    suppress,
)
from training.studies.frontier.knowledge import Knowledge, Models
from training.studies.frontier.method_ids import Base, Comparison, MethodId, Variant
from training.studies.frontier.tags import concepts_of, hide, judged, middle

REFERENCES = (
    MethodId.TAG_BOOST.on(Base.RANK),
    MethodId.DENSE_PROBE.on(Base.RANK),
    MethodId.DENSE_PROBE.on(Base.RELEVANCE),
)
"""The variants that every other one is compared with, user by user."""


def _compare(base: Base, left: MethodId, right: MethodId) -> Comparison:
    return Comparison(left.on(base), right.on(base))


COMPARISONS = (
    _compare(Base.SCORE, MethodId.TARGET_SHARE, MethodId.TARGET_SHARE_LIFT_ALONE),
    _compare(Base.SCORE, MethodId.CONTRAST, MethodId.CONTRAST_UNTRAINED_SAE),
    _compare(Base.SCORE, MethodId.CONTRAST, MethodId.DIFFERENCE_OF_MEANS),
    _compare(Base.SCORE, MethodId.CONTRAST_TOP_10, MethodId.RAW_DIMENSIONS_TOP_10),
    _compare(Base.SCORE, MethodId.CONTRAST_TOP_10, MethodId.BLEND_10_NEURONS),
    _compare(Base.RELEVANCE, MethodId.CONTRAST_PLATT, MethodId.CONTRAST_UNTRAINED_SAE_PLATT),
    _compare(Base.RELEVANCE, MethodId.CONTRAST_PLATT, MethodId.DIFFERENCE_OF_MEANS_PLATT),
    _compare(Base.RELEVANCE, MethodId.RIDGE_ON_CODES, MethodId.RIDGE_ON_UNTRAINED_CODES),
    _compare(Base.RELEVANCE, MethodId.RIDGE_ON_CODES, MethodId.RIDGE_ON_Z),
    _compare(Base.RELEVANCE, MethodId.RIDGE_ON_CODES, MethodId.DENSE_PROBE),
    _compare(Base.RELEVANCE, MethodId.COMPLETED_TAGS_CODES, MethodId.COMPLETED_TAGS_Z),
    _compare(Base.RELEVANCE, MethodId.PROBE_AND_TAG_CODES, MethodId.PROBE_AND_TAG_UNTRAINED_CODES),
    _compare(Base.RELEVANCE, MethodId.PROBE_AND_TAG_CODES, MethodId.PROBE_AND_TAG_Z),
)
"""Comparisons of a target share's lift with and without ADD, and of trained neurons with untrained
ones and dense vectors."""
_BASES_HIDDEN = (Base.RANK, Base.RELEVANCE)
_ORACLE = MethodId.ALL_TAGS.on(Base.RANK)
_MOST_REACHED = 0.9
"""Share of the concepts that a variant must reach for its misses to leave a concept out of the
means."""


@options
class FrontierOptions:
    """Configures which concepts are judged, on which users, and with which parts."""

    max_users: int = 1500
    """Test users that are judged, at most: a random choice."""
    max_concepts: int = 20
    """Most frequent attribute values that are judged; none on more than half of the items."""
    hidden: str = "0.5 0.9"
    """Shares of the tags hidden from methods, separated by spaces; empty leaves the part out."""
    effects: bool = True
    """Also suppression, two concepts at once, off-target movement and the number of neurons."""

    def __post_init__(self) -> None:
        if self.max_users < 2 or self.max_concepts < 1:
            raise ConfigError(
                "frontier: max_users and max_concepts: expected at least 2 and 1, "
                f"found {self.max_users} and {self.max_concepts}"
            )
        for share in self.hidden_shares:
            if not 0 < share < 1:
                raise ConfigError(
                    f"frontier: hidden: expected shares between 0 and 1, found {share:g}"
                )

    @property
    def hidden_shares(self) -> list[float]:
        """Returns the shares as numbers."""
        try:
            return [float(share) for share in self.hidden.split()]
        except ValueError as error:
            raise ConfigError(
                f"frontier: hidden: expected numbers, found {self.hidden!r}: {error}"
            ) from error


def measure(
    run: Run, options: FrontierOptions, report: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Measures every part of the frontier on the run's test users.

    Raises:
        ConfigError: if the recommender has a head: its scores are not linear in the strength.
        DataError: if there is no concept.
    """
    if run.recommender.has_head or run.recommender.context_size:
        raise ConfigError(
            f"{run.path}: expected scores that are linear in the strength, as those of elsa, "
            "puresvd, als, bpr, logistic or lightgcn, found the nonlinear head of "
            f"{run.config.recommender}"
        )
    rng = np.random.default_rng([run.config.seed, 0xFA])
    setting = _setting(run, options, rng)
    audience = setting.audience
    known = setting.truth

    def tell(variant: str) -> None:
        report(f"{run.path}: {variant}")

    figures: dict[str, Any] = {
        "data_set": run.data_set,
        "seed": run.config.seed,
        "rotation": run.config.split.rotation,
        "users": audience.size,
        "ndcg": float(audience.ndcg(audience.unsteered).mean()),
        "concepts": [
            {
                "name": concept.name,
                "items": int(setting.flags(concept).sum()),
                "share": concept.share,
                "targets": concept.targets,
            }
            for concept in setting.judged
        ],
    }
    figures["seen"] = _figures(setting, _collect(frontier(setting, known), tell))
    label = middle(setting.judged)
    for share in options.hidden_shares:
        hidden = hide(setting.concepts.tags, run.catalogue.popularity, share, rng)
        shown = Knowledge(setting.models, setting.concepts.tags & ~hidden)
        cells = _collect(frontier(setting, shown, hidden, label, _BASES_HIDDEN), tell)
        figures[f"hidden {share:g}"] = _figures(setting, cells)
    if options.effects:
        figures["effects"] = _effects(setting, known, label, rng)
    return figures


def _setting(run: Run, options: FrontierOptions, rng: np.random.Generator) -> Setting:
    test = np.sort(rng.permutation(run.split.test)[: options.max_users])
    tuning = np.sort(rng.permutation(run.split.validation)[: options.max_users])
    users = Users.of(run, test)
    validation = Audience.tuned(Users.of(run, tuning))
    audience = Audience.of(users, validation.relevance)
    concepts = concepts_of(run, options.max_concepts)
    chosen = judged(concepts, audience)
    if not chosen:
        raise ConfigError(
            f"{run.path}: no concept can be brought to a target share in these users' lists"
        )
    return Setting(audience, Models.of(run, users, validation), concepts, chosen)


def _collect(
    results: Iterable[VariantCells], report: Callable[[str], None]
) -> dict[Variant, Cells]:
    cells = {}
    for variant, own in results:
        report(str(variant))
        cells[variant] = own
    return cells


def _figures(setting: Setting, cells: Mapping[Variant, Cells]) -> dict[str, Any]:
    """Summarises all variants at every target that any of them reaches."""
    reached = {key.label for own in cells.values() for key in own}
    labels = sorted(reached & {label for one in setting.judged for label in one.targets})
    asked = {
        label: [one.name for one in setting.judged if label in one.targets] for label in labels
    }
    common = {label: _common(cells, label, asked[label]) for label in labels}
    methods: dict[str, Any] = {str(variant): {} for variant in cells}
    for variant, label in itertools.product(cells, labels):
        summary = _summary(cells, variant, label, common[label])
        methods[str(variant)][label] = summary | {"asked": len(asked[label])}
    return {"common": common, "methods": methods, "pairs": _compared(cells, labels)}


def _compared(cells: Mapping[Variant, Cells], labels: Sequence[str]) -> dict[str, Any]:
    compared = {}
    for pair in COMPARISONS:
        if pair.left in cells and pair.right in cells:
            left = cells[pair.left]
            right = cells[pair.right]
            compared[str(pair)] = {label: difference(left, right, label) for label in labels}
    return compared


def _common(cells: Mapping[Variant, Cells], label: str, asked: Sequence[str]) -> list[str]:
    """Returns the concepts that all variants reach which reach most of those asked for."""
    by_variant = [set(_at(own, label)) for own in cells.values()]
    able = [names for names in by_variant if len(names) >= _MOST_REACHED * len(asked)]
    return [name for name in asked if all(name in names for names in able)]


def _summary(
    cells: Mapping[Variant, Cells], variant: Variant, label: str, common: Sequence[str]
) -> dict[str, Any]:
    own = _at(cells[variant], label)
    oracle = _at(cells.get(_ORACLE, {}), label)
    has_all = len(common) > 0 and all(name in own for name in common)
    return {
        "reached": len(own),
        "ndcg": _mean([own[name].ndcg.mean() for name in common]) if has_all else None,
        "exposure": _mean([cell.exposure for cell in own.values()]),
        "plain": _mean([cell.plain for cell in own.values()]),
        "hidden": _mean(_hidden_parts(own, oracle)),
        "concepts": {
            name: [float(cell.ndcg.mean()), cell.plain, cell.hidden] for name, cell in own.items()
        },
        "minus": {
            str(reference): difference(cells[variant], cells[reference], label)
            for reference in REFERENCES
            if reference in cells
        },
    }


def _hidden_parts(own: Mapping[str, Cell], oracle: Mapping[str, Cell]) -> list[float]:
    """Returns the parts of the oracle's hidden exposure that a variant reaches, by concept."""
    return [
        own[name].hidden / oracle[name].hidden
        for name in own
        if name in oracle and oracle[name].hidden
    ]


def _at(cells: Cells, label: str) -> dict[str, Cell]:
    """Returns the cells at one target, by the concept's name."""
    return {key.concept: cell for key, cell in cells.items() if key.label == label}


def difference(left: Cells, right: Cells, label: str) -> dict[str, float] | None:
    """Computes the mean nDCG difference over the users and the concepts that both reached.

    Users are drawn, concepts are not: the standard error is that of the mean of the users' own
    means.
    """
    shared = [key for key in left if key.label == label and key in right]
    return paired([left[key].ndcg - right[key].ndcg for key in shared])


def paired(differences: Sequence[NDArray[np.floating]]) -> dict[str, float] | None:
    """Computes the mean, its standard error with users as clusters, and the number of concepts.

    differences holds one array [users] for each concept; None if it is empty.
    """
    if not differences:
        return None
    per_user: Doubles = np.stack(differences).mean(axis=0, dtype=np.float64)
    error = per_user.std(ddof=1) / math.sqrt(len(per_user))
    return {"mean": float(per_user.mean()), "error": float(error), "concepts": len(differences)}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _effects(
    setting: Setting, known: Knowledge, label: str, rng: np.random.Generator
) -> dict[str, Any]:
    return {
        "label": label,
        "suppression": _suppression(setting, known, rng),
        "off_target": _off_target(setting, known, label),
        "together": {
            str(variant): [pair._asdict() for pair in pairs]
            for variant, pairs in amplify_pairs(setting, known).items()
        },
        "neurons": {
            name: {str(count): share for count, share in kept.items()}
            for name, kept in neurons_needed(setting, known, label).items()
        },
    }


def _suppression(setting: Setting, known: Knowledge, rng: np.random.Generator) -> dict[str, Any]:
    unsteered = setting.audience.ndcg(setting.audience.unsteered)
    halved = suppress(setting, known, rng)
    random = halved[RANDOM]
    return {
        str(variant): {
            "reached": len(own),
            "loss": paired([unsteered - ndcg for ndcg in own.values()]),
            "minus random": paired([own[name] - random[name] for name in own]),
        }
        for variant, own in halved.items()
    }


def _off_target(setting: Setting, known: Knowledge, label: str) -> dict[str, Any]:
    moved = amplify(setting, known, label)
    boost = moved[MethodId.TAG_BOOST.on(Base.RANK)]
    return {
        str(variant): {
            "reached": len(own),
            "moved": _mean([effect.off_target for effect in own.values()]),
            "over boost": _mean(
                [own[name].off_target / boost[name].off_target for name in own if name in boost]
            ),
        }
        for variant, own in moved.items()
    }

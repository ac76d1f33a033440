"""Effects besides amplifying one concept: suppression, pairs, off-target moves, neurons needed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from training.arrays import Bools, Doubles
from training.studies.frontier.audience import Audience, exposure, reach
from training.studies.frontier.cells import SearchLine, Setting, search_line
from training.studies.frontier.knowledge import Knowledge
from training.studies.frontier.linear_scores import LinearScores, Lists, SearchPoint, best_items
from training.studies.frontier.method_ids import Base, MethodId, Variant
from training.studies.frontier.methods import METHODS, largest
from training.studies.frontier.tags import Concept

VARIANTS = (
    MethodId.TAG_BOOST.on(Base.SCORE),
    MethodId.TAG_BOOST.on(Base.RANK),
    MethodId.TAG_BOOST.on(Base.RELEVANCE),
    MethodId.BOOST.on(Base.PLACES),
    MethodId.TAG_BOOST_ORTHOGONAL.on(Base.RANK),
    MethodId.FILLED_TAGS.on(Base.RELEVANCE),
    MethodId.COMPLETED_TAGS_Z.on(Base.RELEVANCE),
    MethodId.COMPLETED_TAGS_CODES.on(Base.RELEVANCE),
    MethodId.IMPUTED_TAGS.on(Base.RELEVANCE),
    MethodId.PROBE_AND_TAG_Z.on(Base.RELEVANCE),
    MethodId.DIFFERENCE_OF_MEANS.on(Base.SCORE),
    MethodId.CONTRAST.on(Base.SCORE),
    MethodId.CONTRAST.on(Base.RANK),
    MethodId.CONTRAST_UNTRAINED_SAE.on(Base.RANK),
    MethodId.CONTRAST_ORTHOGONAL.on(Base.RANK),
)
"""The variants that suppression and off-target movement compare."""
_NOT_PAIRED = (
    MethodId.TAG_BOOST_ORTHOGONAL,
    MethodId.CONTRAST_ORTHOGONAL,
    MethodId.CONTRAST_UNTRAINED_SAE,
)
_PAIR_VARIANTS = tuple(variant for variant in VARIANTS if variant.method not in _NOT_PAIRED)
RANDOM = MethodId.RANDOM_FILTER.on(Base.SCORE)
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 400)
"""Numbers of a concept's largest neurons whose part of the effect is measured."""
_PAIRED = 5
"""Largest concepts that are paired: pairs grow with its square."""
_PAIR_SHARE = 0.3
_MOST_TURNS = 200
_CLOSE = 2e-3
"""Distance from the target at which a share counts as reached, in exposure share."""
_FILTER_STEPS = 10


class Effect(NamedTuple):
    """nDCG@20 [users] with a concept's share changed, and the other concepts' mean move."""

    ndcg: Doubles
    off_target: float


def suppress(
    setting: Setting, known: Knowledge, rng: np.random.Generator
) -> dict[Variant, dict[str, Doubles]]:
    """Halves each concept's exposure share: returns nDCG@20 [users] by variant and concept.

    The random filter removes the same share of the exposure by never returning random ones of the
    concept's items, drawn for each user anew.
    """
    audience = setting.audience
    ndcg: dict[Variant, dict[str, Doubles]] = {}
    for variant, concept, line in _lines(setting, known):
        opposite = line.scores._replace(gain=-line.scores.gain)
        flags = setting.flags(concept)
        (point,) = reach(opposite, line.best_at_0, flags, [concept.share / 2])
        if point is not None:
            ndcg.setdefault(variant, {})[concept.name] = audience.ndcg(point.lists)
    for concept in setting.judged:
        lists = _random_filter(setting, setting.flags(concept), concept.share / 2, rng)
        ndcg.setdefault(RANDOM, {})[concept.name] = audience.ndcg(lists)
    return ndcg


def amplify(setting: Setting, known: Knowledge, label: str) -> dict[Variant, dict[str, Effect]]:
    """Brings each concept's share to its target of a label: effects by variant and concept."""
    audience = setting.audience
    tags = setting.concepts.tags
    before = np.array([exposure(audience.unsteered, flags).mean() for flags in tags])
    effects: dict[Variant, dict[str, Effect]] = {}
    for variant, concept, line in _lines(setting, known):
        if label not in concept.targets:
            continue
        target = concept.targets[label]
        (point,) = reach(line.scores, line.best_at_0, setting.flags(concept), [target])
        if point is not None:
            after = np.array([exposure(point.lists, flags).mean() for flags in tags])
            others = np.delete(np.abs(after - before), concept.row)
            effect = Effect(audience.ndcg(point.lists), float(others.mean()))
            effects.setdefault(variant, {})[concept.name] = effect
    return effects


def _lines(setting: Setting, known: Knowledge) -> Iterator[tuple[Variant, Concept, SearchLine]]:
    """Yields every variant's scores for every judged concept."""
    for variant in VARIANTS:
        gains = METHODS[variant.method].fit(known)
        for concept in setting.judged:
            yield variant, concept, search_line(setting.audience, variant, gains, concept.row)


def _random_filter(
    setting: Setting, flags: Bools, target: float, rng: np.random.Generator
) -> Lists:
    """Returns lists without a random share of the flagged items that leaves the target exposure.

    The share is found by bisection.
    """
    base = setting.audience.bases[Base.SCORE]
    draws = np.where(flags, rng.random(base.shape, dtype=np.float32), 2.0).astype(np.float32)
    low = 0.0
    high = 1.0
    no_gain = np.zeros(base.shape[1], dtype=np.float32)
    for _ in range(_FILTER_STEPS):
        share = (low + high) / 2
        lists = LinearScores(np.where(draws < share, -np.inf, base), no_gain).lists(0.0)
        if exposure(lists, flags).mean() > target:
            low = share
        else:
            high = share
    return lists


class Pair(NamedTuple):
    """Two concepts amplified at once: nDCG lost by each alone and by both, and their shares."""

    names: tuple[str, str]
    single_losses: tuple[float, float]
    loss: float
    shares: tuple[float, float]


class _Single(NamedTuple):
    """One concept brought to the pairs' share by a variant."""

    concept: Concept
    scores: LinearScores
    flags: Bools
    point: SearchPoint


def amplify_pairs(setting: Setting, known: Knowledge) -> dict[Variant, list[Pair]]:
    """Brings pairs of the largest concepts with a share below 0.3 both to 0.3: by variant.

    Pairs that a variant cannot bring there are left out.
    """
    chosen = [concept for concept in setting.judged if "0.3" in concept.targets][:_PAIRED]
    pairs: dict[Variant, list[Pair]] = {}
    for variant in _PAIR_VARIANTS:
        singles = _singles(setting, known, variant, chosen)
        for one, two in itertools.combinations(singles, 2):
            pair = _pair(setting.audience, one, two)
            if pair is not None:
                pairs.setdefault(variant, []).append(pair)
    return pairs


def _singles(
    setting: Setting, known: Knowledge, variant: Variant, chosen: list[Concept]
) -> list[_Single]:
    gains = METHODS[variant.method].fit(known)
    singles = []
    for concept in chosen:
        scores = search_line(setting.audience, variant, gains, concept.row).scores
        flags = setting.flags(concept)
        best_at_0 = setting.audience.best_at_0[variant.base]
        (point,) = reach(scores, best_at_0, flags, [_PAIR_SHARE])
        if point is not None:
            singles.append(_Single(concept, scores, flags, point))
    return singles


def _pair(audience: Audience, one: _Single, two: _Single) -> Pair | None:
    lists = reach_both(
        audience,
        (one.scores, two.scores),
        (one.flags, two.flags),
        (_PAIR_SHARE, _PAIR_SHARE),
        (one.point.t, two.point.t),
    )
    if lists is None:
        return None
    unsteered = float(audience.ndcg(audience.unsteered).mean())
    losses = [unsteered - float(audience.ndcg(own.point.lists).mean()) for own in (one, two)]
    shares = [float(exposure(lists, own.flags).mean()) for own in (one, two)]
    return Pair(
        names=(one.concept.name, two.concept.name),
        single_losses=(losses[0], losses[1]),
        loss=unsteered - float(audience.ndcg(lists).mean()),
        shares=(shares[0], shares[1]),
    )


def reach_both(
    audience: Audience,
    scores: tuple[LinearScores, LinearScores],
    flags: tuple[Bools, Bools],
    targets: tuple[float, float],
    start: tuple[float, float],
) -> Lists | None:
    """Returns lists with both shares at their targets, or None if that is out of reach.

    Both targets lie above the unsteered shares, or both below. One strength after the other is
    solved with the other held, beginning with those in start, until both shares are right. Concepts
    that take places from each other make both strengths grow on the way to the smallest sufficient
    pair, so a share that no strength reaches while the other is held is out of reach for good. A
    share that the other concept brings along by itself may lie beyond its target.
    """
    sign = 1.0 if targets[0] >= exposure(audience.unsteered, flags[0]).mean() else -1.0
    strengths = [*start]
    for turn in range(_MOST_TURNS):
        moved = turn % 2
        held = 1 - moved
        base = scores[held].base + np.float32(strengths[held]) * scores[held].gain
        line = LinearScores(base, scores[moved].gain)
        lists = line.lists(0.0)
        if sign * (exposure(lists, flags[moved]).mean() - targets[moved]) >= 0:
            point: SearchPoint | None = SearchPoint(0.0, lists)
        else:
            (point,) = reach(line, best_items(base), flags[moved], [targets[moved]])
        if point is None:
            return None
        strengths[moved] = point.t
        excess = sign * (exposure(point.lists, flags[held]).mean() - targets[held])
        if abs(excess) < _CLOSE or (excess > 0 and strengths[held] == 0.0):
            return point.lists
    return None


def neurons_needed(setting: Setting, known: Knowledge, label: str) -> dict[str, dict[int, float]]:
    """Measures the share of the contrast's effect that a concept's largest neurons keep alone.

    The effect is the rise of the concept's exposure share at the strength with which all neurons
    bring it to the target; the largest neurons are used at the same strength. Returns shares by
    concept and number of neurons.
    """
    audience = setting.audience
    features = setting.models.neurons
    weights = known.contrast(features)
    project = features.W_dec @ setting.models.item_matrix.T
    shares: dict[str, dict[int, float]] = {}
    for concept in setting.judged:
        if label not in concept.targets:
            continue
        flags = setting.flags(concept)
        line = LinearScores(audience.bases[Base.SCORE], weights[concept.row] @ project)
        target = concept.targets[label]
        (point,) = reach(line, audience.best_at_0[Base.SCORE], flags, [target])
        if point is None:
            continue
        rise = float(exposure(point.lists, flags).mean()) - concept.share
        kept = {}
        for count in COUNTS:
            part = largest(weights[concept.row : concept.row + 1], count)[0]
            lists = line._replace(gain=part @ project).lists(point.t)
            kept[count] = (float(exposure(lists, flags).mean()) - concept.share) / rise
        shares[concept.name] = kept
    return shares

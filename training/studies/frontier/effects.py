"""Beyond one concept amplified: suppression, two at once, what else moves, and how many neurons it takes."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.studies.frontier.audience import Audience, exposure
from training.studies.frontier.cells import Setting, linear_of, reach
from training.studies.frontier.knowledge import Knowledge
from training.studies.frontier.linear_scores import (
    Doubles,
    LinearScores,
    Lists,
    SearchPoint,
    best_items,
)
from training.studies.frontier.methods import METHODS, largest

WAYS = (
    ("tag boost", "score"),
    ("tag boost", "rank"),
    ("tag boost", "relevance"),
    ("boost", "places"),
    ("tag boost, orthogonal", "rank"),
    ("filled tags", "relevance"),
    ("completed tags, z", "relevance"),
    ("completed tags, codes", "relevance"),
    ("imputed tags", "relevance"),
    ("probe and tag, z", "relevance"),
    ("difference of means", "score"),
    ("contrast", "score"),
    ("contrast", "rank"),
    ("contrast, untrained SAE", "rank"),
    ("contrast, orthogonal", "rank"),
)
"""Methods and bases that these parts compare."""
_WAYS_TOGETHER = tuple(
    way for way in WAYS if "orthogonal" not in way[0] and "untrained" not in way[0]
)
RANDOM = ("random filter", "score")
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 400)
_PAIRED = 5
_PAIR_SHARE = 0.3
_MOST_TURNS = 200
_CLOSE = 2e-3


class Effect(NamedTuple):
    """nDCG@20 [users] with a concept's share changed, and how much the other concepts' mean shares moved."""

    ndcg: Doubles
    off_target: float


def suppress(
    setting: Setting, known: Knowledge, rng: np.random.Generator
) -> dict[tuple[str, str], dict[str, Doubles]]:
    """Each concept's exposure share halved: by way and concept, the nDCG of each user.

    The random filter leaves out the same share of the exposure by never returning random ones of
    its items, drawn for each user anew.
    """
    audience = setting.audience
    found: dict[tuple[str, str], dict[str, Doubles]] = {}
    for name, base in WAYS:
        gains = METHODS[name].fit(known)
        for concept in setting.judged:
            linear, best_at_0 = linear_of(audience, base, METHODS[name], gains(concept.row))
            flags = setting.concepts.tags[concept.row]
            opposite = linear._replace(gain=-linear.gain)
            (point,) = reach(audience, opposite, best_at_0, flags, [concept.share / 2])
            if point is not None:
                found.setdefault((name, base), {})[concept.name] = audience.ndcg(point.lists)
    for concept in setting.judged:
        flags = setting.concepts.tags[concept.row]
        lists = _random_filter(setting, flags, concept.share / 2, rng)
        found.setdefault(RANDOM, {})[concept.name] = audience.ndcg(lists)
    return found


def _random_filter(
    setting: Setting, flags: NDArray[np.bool_], target: float, rng: np.random.Generator
) -> Lists:
    """Lists without a random share of the flagged items, such that the target exposure is left; bisection."""
    base = setting.audience.bases["score"]
    draws = np.where(flags, rng.random(base.shape, dtype=np.float32), 2.0).astype(np.float32)
    low, high = 0.0, 1.0
    nothing = np.zeros(base.shape[1], dtype=np.float32)
    for _ in range(10):
        share = (low + high) / 2
        lists = LinearScores(np.where(draws < share, -np.inf, base), nothing).lists(0.0)
        if exposure(lists, flags).mean() > target:
            low = share
        else:
            high = share
    return lists


def amplify(
    setting: Setting, known: Knowledge, label: str
) -> dict[tuple[str, str], dict[str, Effect]]:
    """Each concept's share brought to a target: nDCG and the others' mean change, by way and concept."""
    audience = setting.audience
    tags = setting.concepts.tags
    before = np.array([exposure(audience.unsteered, flags).mean() for flags in tags])
    found: dict[tuple[str, str], dict[str, Effect]] = {}
    for name, base in WAYS:
        gains = METHODS[name].fit(known)
        for concept in setting.judged:
            if label in concept.targets:
                linear, best_at_0 = linear_of(audience, base, METHODS[name], gains(concept.row))
                target = concept.targets[label]
                (point,) = reach(audience, linear, best_at_0, tags[concept.row], [target])
                if point is not None:
                    after = np.array([exposure(point.lists, flags).mean() for flags in tags])
                    others = np.delete(np.abs(after - before), concept.row)
                    effect = Effect(audience.ndcg(point.lists), float(others.mean()))
                    found.setdefault((name, base), {})[concept.name] = effect
    return found


class Pair(NamedTuple):
    """Two concepts at once: nDCG lost by each alone and by both together, and the shares reached."""

    names: tuple[str, str]
    single_losses: tuple[float, float]
    loss: float
    shares: tuple[float, float]


def amplify_pairs(setting: Setting, known: Knowledge) -> dict[tuple[str, str], list[Pair]]:
    """Pairs of the largest concepts whose share is below .3, both brought to .3: by way."""
    audience = setting.audience
    found: dict[tuple[str, str], list[Pair]] = {}
    chosen = [concept for concept in setting.judged if "0.3" in concept.targets][:_PAIRED]
    unsteered = float(audience.ndcg(audience.unsteered).mean())
    for name, base in _WAYS_TOGETHER:
        gains = METHODS[name].fit(known)
        scores = [
            linear_of(audience, base, METHODS[name], gains(concept.row))[0] for concept in chosen
        ]
        flags = [setting.concepts.tags[concept.row] for concept in chosen]
        best_at_0 = audience.best_at_0[base]
        alone = [
            reach(audience, linear, best_at_0, f, [_PAIR_SHARE])[0]
            for linear, f in zip(scores, flags, strict=True)
        ]
        for one, two in itertools.combinations(range(len(chosen)), 2):
            singles = [point for point in (alone[one], alone[two]) if point]
            if len(singles) < 2:
                continue
            start = (singles[0].t, singles[1].t)
            pair_of_lines, pair_of_flags = (scores[one], scores[two]), (flags[one], flags[two])
            lists = reach_both(
                audience, pair_of_lines, pair_of_flags, (_PAIR_SHARE, _PAIR_SHARE), start
            )
            if lists is not None:
                losses = [unsteered - float(audience.ndcg(point.lists).mean()) for point in singles]
                pair = Pair(
                    (chosen[one].name, chosen[two].name),
                    (losses[0], losses[1]),
                    unsteered - float(audience.ndcg(lists).mean()),
                    (
                        float(exposure(lists, flags[one]).mean()),
                        float(exposure(lists, flags[two]).mean()),
                    ),
                )
                found.setdefault((name, base), []).append(pair)
    return found


def reach_both(
    audience: Audience,
    scores: tuple[LinearScores, LinearScores],
    flags: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    targets: tuple[float, float],
    start: tuple[float, float],
) -> Lists | None:
    """Lists with both shares at their targets, both above or both below the unsteered ones; None if not.

    One strength after the other is solved with the other held, from those in start on, until both
    shares are right. Concepts that take places from each other make both strengths grow on the way
    to the least pair that is enough, so a share that no strength reaches beside the other's is out
    of reach for good. A share that the other concept brings along by itself may lie beyond its
    target.
    """
    sign = 1.0 if targets[0] >= exposure(audience.unsteered, flags[0]).mean() else -1.0
    strengths = [*start]
    for turn in range(_MOST_TURNS):
        moved, held = turn % 2, 1 - turn % 2
        base = scores[held].base + np.float32(strengths[held]) * scores[held].gain
        linear = LinearScores(base, scores[moved].gain)
        lists = linear.lists(0.0)
        if sign * (exposure(lists, flags[moved]).mean() - targets[moved]) >= 0:
            point: SearchPoint | None = SearchPoint(0.0, lists)
        else:
            (point,) = reach(audience, linear, best_items(base), flags[moved], [targets[moved]])
        if point is None:
            return None
        strengths[moved] = point.t
        excess = sign * (exposure(point.lists, flags[held]).mean() - targets[held])
        if abs(excess) < _CLOSE or (excess > 0 and strengths[held] == 0.0):
            return point.lists
    return None


def neurons_needed(setting: Setting, known: Knowledge, label: str) -> dict[str, dict[int, float]]:
    """Share of the contrast's effect that its largest neurons keep at its own strength: by concept and count.

    The effect is the rise of the concept's exposure share where all neurons bring it to the target.
    """
    audience, features = setting.audience, setting.models.neurons
    weights = known.contrast(features)
    project = features.W_dec @ setting.models.item_matrix.T
    found: dict[str, dict[int, float]] = {}
    for concept in setting.judged:
        if label in concept.targets:
            flags = setting.concepts.tags[concept.row]
            linear = LinearScores(audience.bases["score"], weights[concept.row] @ project)
            target = concept.targets[label]
            (point,) = reach(audience, linear, audience.best_at_0["score"], flags, [target])
            if point is not None:
                rise = float(exposure(point.lists, flags).mean()) - concept.share
                kept = {}
                for count in COUNTS:
                    part = largest(weights[concept.row : concept.row + 1], count)[0]
                    lists = linear._replace(gain=part @ project).lists(point.t)
                    kept[count] = (float(exposure(lists, flags).mean()) - concept.share) / rise
                found[concept.name] = kept
    return found

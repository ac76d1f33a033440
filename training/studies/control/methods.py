"""Methods that bring a concept's share to a target: those of requests, and simpler ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from training.arrays import Bools, Doubles, Floats, Ints
from training.studies.control.operations import own_neurons
from training.studies.control.setting import Setting
from training.studies.frontier.audience import exposure, reach
from training.studies.frontier.linear_scores import LENGTH, LinearScores, Lists, best_first, top_n
from training.studies.frontier.method_ids import Base, MethodId
from training.studies.frontier.target_shares import STRENGTHS

Method = Callable[[Setting, int, float], Lists | None]
"""Returns lists whose mean exposure share of a concept (a row) is the target, or None if it cannot
reach it."""
_LADDER = STRENGTHS[MethodId.TARGET_SHARE]
_STEPS = 20
"""Bisections for the level of a CAP."""


def added(setting: Setting, row: int, target: float) -> Lists | None:
    """Applies ADD of the concept, with one strength for all users."""
    gain = _towards(setting, row, target) * setting.directions[row]
    return _reached(setting, row, setting.linear(gain), target)


def lifted(setting: Setting, row: int, target: float) -> Lists | None:
    """Adds a number to the score of the concept's items, one for all users, as a lift does."""
    gain = _towards(setting, row, target) * setting.concepts.tags[row]
    return _reached(setting, row, setting.linear(gain), target)


def boosted(setting: Setting, row: int, target: float) -> Lists | None:
    """Applies BOOST of the concept, with one strength for all users."""
    gain = _towards(setting, row, target) * setting.concepts.tags[row]
    return _reached(setting, row, setting.linear(gain, base=Base.PLACES), target)


def silenced(setting: Setting, row: int, target: float) -> Lists | None:
    """Scales the concept's largest neurons down, at most to 0."""
    kept = np.zeros_like(setting.codes)
    neurons = own_neurons(setting.fitted[row])
    kept[:, neurons] = setting.codes[:, neurons]
    return _reached(setting, row, setting.linear(-setting.moved(kept), limit=1.0), target)


def capped(setting: Setting, row: int, target: float) -> Lists | None:
    """Applies CAP of the concept, with one largest level for all users, found by bisection."""
    w = setting.fitted[row].weights
    levels = setting.codes @ w / np.dot(w, w)
    flags = setting.concepts.tags[row]
    direction = setting.directions[row]
    base = setting.audience.bases[Base.SCORE]

    def lists(cap: float) -> Lists:
        fall = np.minimum(cap - levels, 0.0)[:, None]
        return LinearScores(base + fall * direction, np.zeros_like(direction)).lists(0.0)

    low = float(levels.min()) - 10 * setting.fitted[row].unit
    high = float(levels.max())
    if exposure(lists(low), flags).mean() > target:
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if exposure(lists(middle), flags).mean() > target:
            high = middle
        else:
            low = middle
    return lists(low)


def bounded(setting: Setting, row: int, share: float) -> Lists:
    """Bounds each user's own share to a fraction of the unsteered one, by ADD and then a lift.

    The service's weakest ADD that leaves few enough items is taken; where none does, the strongest,
    and the concept's items are lowered just as far as the share needs.
    """
    base = setting.audience.bases[Base.SCORE]
    flags = setting.concepts.tags[row]
    most = _most(setting, row, share)
    left = np.arange(len(base))
    lists = np.empty((len(base), LENGTH), dtype=np.int64)
    for strength in _LADDER:
        fall = np.float32(strength * setting.fitted[row].unit) * setting.directions[row]
        scores = base[left] - fall
        steered = best_first(top_n(scores, LENGTH), scores)
        lists[left] = steered
        missed = flags[steered].sum(axis=1) > most[left]
        left = left[missed]
        scores = scores[missed]
        if not len(left):
            return lists
    lists[left] = lowered(scores, flags, most[left])
    return lists


def lowered_to(setting: Setting, row: int, share: float) -> Lists:
    """Bounds each user's own share to a fraction of the unsteered one, by the lift alone."""
    base = setting.audience.bases[Base.SCORE]
    return lowered(base, setting.concepts.tags[row], _most(setting, row, share))


def _most(setting: Setting, row: int, share: float) -> Ints:
    """Returns the largest number of the concept's items in each user's list, [users]."""
    counts = setting.concepts.tags[row][setting.audience.unsteered].sum(axis=1)
    most: Ints = np.floor(share * counts + 1e-9).astype(np.int64)
    return most


def lowered(scores: Floats, flags: Bools, most: Ints) -> Lists:
    """Returns lists with at most as many flagged items as most [users] allows.

    The scores [users, n_items] of all flagged items are lowered by the same number, so that the
    first surplus one comes just below the last of the others that fill the list.
    """
    wide: Any = scores.astype(np.float64)  # float32 could not make the smallest step below a score
    members, others = (
        np.take_along_axis(kind, best_first(top_n(kind, LENGTH + 1), kind), 1)
        for kind in (np.where(flags, wide, -np.inf), np.where(flags, -np.inf, wide))
    )
    users = np.arange(len(wide))
    last = others[users, np.clip(LENGTH - most - 1, 0, None)]
    fall = members[users, np.minimum(most, LENGTH)] - last + 1e-9 * np.abs(last)
    needed = flags[top_n(wide, LENGTH)].sum(axis=1) > most
    fall = np.where(needed & np.isfinite(fall), fall, 0.0)[:, None]
    moved = np.where(flags, wide - fall, wide)
    return best_first(top_n(moved, LENGTH), moved)


def _towards(setting: Setting, row: int, target: float) -> np.float32:
    """Returns 1 if the target is above the unsteered share, -1 if it is below."""
    share = exposure(setting.audience.unsteered, setting.concepts.tags[row]).mean()
    return np.float32(1.0 if target >= share else -1.0)


def _reached(setting: Setting, row: int, scores: LinearScores, target: float) -> Lists | None:
    (point,) = reach(scores, setting.best_at_0, setting.concepts.tags[row], [target])
    return None if point is None else point.lists


def randomly_removed(
    setting: Setting, row: int, counts: Ints, rng: np.random.Generator, draws: int
) -> Doubles:
    """Measures nDCG@20 [users] with random items of the concept removed from the unsteered lists.

    counts [users] says how many items are removed; a count below 0 is 0. The best items without the
    concept take their places. Mean over draws.
    """
    base = setting.audience.bases[Base.SCORE]
    flags = setting.concepts.tags[row]
    unsteered = setting.audience.unsteered
    listed = flags[unsteered]
    left = np.where(flags, -np.inf, base).astype(np.float32)
    own = np.take_along_axis(base, unsteered, 1)
    kept = np.where(listed, own, np.take_along_axis(left, unsteered, 1))
    np.put_along_axis(left, unsteered, kept, 1)
    ndcg = []
    for _ in range(draws):
        drawn = np.where(listed, rng.random(listed.shape), 2.0)
        place = np.argsort(np.argsort(drawn, axis=1), axis=1)
        removed = listed & (place < counts[:, None])
        scores = left.copy()
        np.put_along_axis(scores, unsteered, np.where(removed, -np.inf, kept), 1)
        ndcg.append(setting.audience.ndcg(best_first(top_n(scores, LENGTH), scores)))
    mean: Doubles = np.mean(ndcg, axis=0)
    return mean

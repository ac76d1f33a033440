"""Ways of bringing a concept's share to a target: those that requests have, and plain ones beside them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.studies.control.operations import Doubles, own_neurons
from training.studies.control.setting import Setting
from training.studies.frontier.audience import exposure, reach
from training.studies.frontier.linear_scores import (
    LENGTH,
    Floats,
    LinearScores,
    Lists,
    best_first,
    top_n,
)
from training.studies.frontier.method_ids import MethodId
from training.studies.frontier.target_shares import STRENGTHS

Method = Callable[[Setting, int, float], Lists | None]
"""Lists whose mean exposure share of a concept (a row) is the target; None where it cannot be reached."""
_LADDER = STRENGTHS[MethodId.TARGET_SHARE]
_STEPS = 20


def added(setting: Setting, row: int, target: float) -> Lists | None:
    """ADD of the concept, one strength for all users."""
    return _reached(
        setting,
        row,
        setting.linear(_towards(setting, row, target) * setting.directions[row]),
        target,
    )


def lifted(setting: Setting, row: int, target: float) -> Lists | None:
    """A number added to the score of the concept's items, one for all users: what a lift does."""
    return _reached(
        setting,
        row,
        setting.linear(_towards(setting, row, target) * setting.concepts.tags[row]),
        target,
    )


def boosted(setting: Setting, row: int, target: float) -> Lists | None:
    """BOOST of the concept, one strength for all users."""
    gain = _towards(setting, row, target) * setting.concepts.tags[row]
    return _reached(setting, row, setting.linear(gain, base="places"), target)


def silenced(setting: Setting, row: int, target: float) -> Lists | None:
    """The concept's largest neurons scaled down, at most to 0."""
    kept = np.zeros_like(setting.codes)
    neurons = own_neurons(setting.fitted[row])
    kept[:, neurons] = setting.codes[:, neurons]
    return _reached(setting, row, setting.linear(-setting.moved(kept), limit=1.0), target)


def capped(setting: Setting, row: int, target: float) -> Lists | None:
    """CAP of the concept, one largest level for all users; bisection."""
    w = setting.fitted[row].weights
    levels = setting.codes @ w / np.dot(w, w)
    flags, base = setting.concepts.tags[row], setting.audience.bases["score"]

    def lists(most: float) -> Lists:
        fall = np.minimum(most - levels, 0.0)[:, None]
        return LinearScores(
            base + fall * setting.directions[row], np.zeros_like(setting.directions[row])
        ).lists(0.0)

    low, high = float(levels.min()) - 10 * setting.fitted[row].unit, float(levels.max())
    if exposure(lists(low), flags).mean() > target:
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if exposure(lists(middle), flags).mean() > target else (middle, high)
        )
    return lists(low)


def bounded(setting: Setting, row: int, share: float) -> Lists:
    """A largest share of each user's own list, as a fraction of the unsteered one: ADD, then a lift.

    The weakest ADD, of those that the service gives, that leaves so few items; where none does, the
    strongest, and the concept's items are lowered just as far as the share needs.
    """
    base, flags = setting.audience.bases["score"], setting.concepts.tags[row]
    most = np.floor(share * flags[setting.audience.unsteered].sum(axis=1) + 1e-9).astype(np.int64)
    left = np.arange(len(base))
    lists = np.empty((len(base), LENGTH), dtype=np.int64)
    for strength in _LADDER:
        scores = (
            base[left] - np.float32(strength * setting.fitted[row].unit) * setting.directions[row]
        )
        found = best_first(top_n(scores, LENGTH), scores)
        lists[left] = found
        missed = flags[found].sum(axis=1) > most[left]
        left, scores = left[missed], scores[missed]
        if not len(left):
            return lists
    lists[left] = lowered(scores, flags, most[left])
    return lists


def lowered_to(setting: Setting, row: int, share: float) -> Lists:
    """The same by the lift alone."""
    flags = setting.concepts.tags[row]
    most = np.floor(share * flags[setting.audience.unsteered].sum(axis=1) + 1e-9).astype(np.int64)
    return lowered(setting.audience.bases["score"], flags, most)


def lowered(scores: Floats, flags: NDArray[np.bool_], most: NDArray[np.int64]) -> Lists:
    """Lists with at most so many [users] flagged items, whose scores [users, n_items] are lowered for it.

    The first flagged item that is one too many comes to stand just below the last of the others
    that fill the list.
    """
    scores = scores.astype(
        np.float64
    )  # the smallest step below another score that float32 could not make
    ours, others = (
        np.take_along_axis(kind, best_first(top_n(kind, LENGTH + 1), kind), 1)
        for kind in (np.where(flags, scores, -np.inf), np.where(flags, -np.inf, scores))
    )
    users = np.arange(len(scores))
    last = others[users, np.clip(LENGTH - most - 1, 0, None)]
    fall = ours[users, np.minimum(most, LENGTH)] - last + 1e-9 * np.abs(last)
    needed = flags[top_n(scores, LENGTH)].sum(axis=1) > most
    fall = np.where(needed & np.isfinite(fall), fall, 0.0)[:, None]
    moved = np.where(flags, scores - fall, scores)
    return best_first(top_n(moved, LENGTH), moved)


def _towards(setting: Setting, row: int, target: float) -> np.float32:
    """1 where the target is above the unsteered share, -1 where it is below."""
    share = exposure(setting.audience.unsteered, setting.concepts.tags[row]).mean()
    return np.float32(1.0 if target >= share else -1.0)


def _reached(setting: Setting, row: int, linear: LinearScores, target: float) -> Lists | None:
    (point,) = reach(linear, setting.best_at_0, setting.concepts.tags[row], [target])
    return None if point is None else point.lists


def randomly_removed(
    setting: Setting, row: int, counts: NDArray[np.int64], rng: np.random.Generator, draws: int
) -> Doubles:
    """nDCG@20 [users] where so many [users] of a list's items of the concept are left out at random.

    The best items without the concept take their places. Mean over draws; a count below 0 is 0.
    """
    base, flags = setting.audience.bases["score"], setting.concepts.tags[row]
    unsteered = setting.audience.unsteered
    listed = flags[unsteered]
    left = np.where(flags, -np.inf, base).astype(np.float32)
    kept = np.where(
        listed, np.take_along_axis(base, unsteered, 1), np.take_along_axis(left, unsteered, 1)
    )
    np.put_along_axis(left, unsteered, kept, 1)
    found = []
    for _ in range(draws):
        place = np.argsort(
            np.argsort(np.where(listed, rng.random(listed.shape), 2.0), axis=1), axis=1
        )
        scores = left.copy()
        np.put_along_axis(
            scores, unsteered, np.where(listed & (place < counts[:, None]), -np.inf, kept), 1
        )
        found.append(setting.audience.ndcg(best_first(top_n(scores, LENGTH), scores)))
    mean: Doubles = np.mean(found, axis=0)
    return mean

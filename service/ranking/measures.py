"""Measures on lists: exposure, shares, relevance loss, overlap."""

from functools import lru_cache

import numpy as np

from service.arrays import Bools, Floats, Ints

RELEVANCE_DEPTH = 500
"""R of the relevance loss: the unsteered rank at which an item counts as worth nothing."""


@lru_cache(maxsize=64)
def discounts(n: int) -> Floats:
    """1 / log2(1 + rank) for ranks 1 to n: the exposure of each position. Not to be changed."""
    found = (1.0 / np.log2(np.arange(2, n + 2))).astype(np.float32)
    found.flags.writeable = False
    return found


def exposure_share(members: Bools) -> float:
    """Share of a list's exposure that goes to members: bool [n] in rank order -> [0, 1]."""
    if not len(members):
        return 0.0
    weights = discounts(len(members))
    return float(weights[members].sum() / weights.sum())


def item_share(members: Bools) -> float:
    """Share of a list's items that are members: bool [n] -> [0, 1]."""
    return float(members.mean()) if len(members) else 0.0


def relevance_loss(unsteered_scores: Floats, steered_items_scores: Floats) -> float:
    """1 - sum_r disc(r) g(steered at r) / sum_r disc(r) g(unsteered at r), free of the scores' scale.

    g(i) = (u_i - u_R) / (u_1 - u_R), with u the unsteered scores in order and R = 500, or as many
    as there are.

    Args:
        unsteered_scores: u_1 .. u_R, descending.
        steered_items_scores: Unsteered scores of the steered list's items, in the steered order
            [n].
    """
    n = len(steered_items_scores)
    if n == 0 or len(unsteered_scores) == 0:
        return 0.0
    depth = min(RELEVANCE_DEPTH, len(unsteered_scores))
    best, floor = float(unsteered_scores[0]), float(unsteered_scores[depth - 1])
    if best == floor:
        return 0.0
    weights = discounts(n).astype(np.float64)
    gained = float(weights @ (steered_items_scores.astype(np.float64) - floor))
    possible = float(weights @ (unsteered_scores[:n].astype(np.float64) - floor))
    return 1.0 - gained / possible


def overlap(left: Ints, right: Ints) -> float:
    """Share of items that two lists of one length have in common."""
    return len(np.intersect1d(left, right)) / max(len(left), 1)

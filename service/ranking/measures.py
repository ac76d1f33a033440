"""Measures lists: exposure, shares, relevance loss, overlap. Pure."""

from functools import lru_cache

import numpy as np

from service.arrays import Bools, Floats, Ints

RELEVANCE_DEPTH = 500
"""R of the relevance loss: the unsteered rank from which items have no relevance.

A larger R makes losses smaller, and needs more candidates.
"""


@lru_cache(maxsize=64)
def discounts(n: int) -> Floats:
    """Computes the exposure of ranks 1 to n, 1 / log2(1 + rank): read-only float32 [n]."""
    values = (1.0 / np.log2(np.arange(2, n + 2))).astype(np.float32)
    values.flags.writeable = False
    return values


def exposure_share(members: Bools) -> float:
    """Computes members' share of a list's exposure: bool [n] in rank order -> [0, 1]."""
    if not len(members):
        return 0.0
    weights = discounts(len(members))
    return float(weights[members].sum() / weights.sum())


def item_share(members: Bools) -> float:
    """Computes the share of a list's items that are members: bool [n] -> [0, 1]."""
    return float(members.mean()) if len(members) else 0.0


def relevance_loss(unsteered_scores: Floats, steered_items_scores: Floats) -> float:
    """Computes 1 - sum_r disc(r) g(steered at r) / sum_r disc(r) g(unsteered at r).

    g(i) = (u_i - u_R) / (u_1 - u_R), with the unsteered scores u in order and R = RELEVANCE_DEPTH,
    or the number of items if that is smaller. It does not depend on the scale of the scores.

    Args:
        unsteered_scores: u_1 to u_R, descending.
        steered_items_scores: Unsteered scores of the steered list's items, in its order: [n].
    """
    n = len(steered_items_scores)
    if n == 0 or len(unsteered_scores) == 0:
        return 0.0
    depth = min(RELEVANCE_DEPTH, len(unsteered_scores))
    best = float(unsteered_scores[0])
    floor = float(unsteered_scores[depth - 1])
    if best == floor:
        return 0.0
    weights = discounts(n).astype(np.float64)
    gained = float(weights @ (steered_items_scores.astype(np.float64) - floor))
    possible = float(weights @ (unsteered_scores[:n].astype(np.float64) - floor))
    return 1.0 - gained / possible


def overlap(left: Ints, right: Ints) -> float:
    """Computes the share of items that two lists of equal length have in common."""
    return len(np.intersect1d(left, right)) / max(len(left), 1)

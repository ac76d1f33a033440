"""Draws the histories that an SAE learns from: random parts of the training users' histories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.arrays import Ints
from training.histories import Histories, stacked
from training.recommender import Recommender

_BATCHES_AT_ONCE = 16
"""Batches drawn together; more let rows of like length be encoded together, and take memory."""


@dataclass(frozen=True)
class SubHistories:
    """Random sub-histories of users with at least one item.

    Each keeps a random share of its items, uniform in [low, high]; where order matters a random
    prefix is taken first. A share of the draws (joined) comes after a random part of another user's
    history, as if one person had been both: with few users, an SAE otherwise learns them by heart.
    """

    histories: Histories
    ordered: bool
    low: float
    high: float
    joined: float

    def draw(self, rows: Ints, rng: np.random.Generator) -> Histories:
        """Draws one sub-history of each of the rows."""
        own = self._part(self.histories.rows(rows), rng, self.low, self.high)
        if not self.joined:
            return own
        size = self.histories.size
        partners = (rows + rng.integers(1, max(size, 2), size=len(rows))) % size
        others = self._part(self.histories.rows(partners), rng, 0.0, 1.0)
        chosen = rng.random(len(rows)) < self.joined
        return _joined(others.keep(np.repeat(chosen, others.lengths)), own)

    def embedded(
        self, recommender: Recommender, max_length: int, batch_size: int, rng: np.random.Generator
    ) -> Iterator[Tensor]:
        """Yields user embeddings [batch_size, d] of one draw of each history, in random order."""
        order = rng.permutation(self.histories.size)
        for start in range(0, len(order), batch_size * _BATCHES_AT_ONCE):
            drawn = self.draw(order[start : start + batch_size * _BATCHES_AT_ONCE], rng).last(
                max_length
            )
            yield from torch.split(
                _embed_by_length(recommender, drawn, max_length, batch_size), batch_size
            )

    def _part(
        self, whole: Histories, rng: np.random.Generator, low: float, high: float
    ) -> Histories:
        if low == high == 1:
            return whole
        return (whole.prefixes(rng) if self.ordered else whole).thinned(rng, low, high)


def _joined(first: Histories, second: Histories) -> Histories:
    """Joins each row of the first to the same row of the second."""
    rows = np.arange(2 * first.size).reshape(2, -1).T.ravel()
    both = stacked([first, second]).rows(rows)
    return Histories(both.offsets[::2], both.items)


def _embed_by_length(
    recommender: Recommender, histories: Histories, max_length: int, batch_size: int
) -> Tensor:
    """Returns embeddings in the histories' order, encoded by length to pad little."""
    order = np.argsort(histories.lengths, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return recommender.embed(histories.rows(order), max_length, batch_size)[torch.from_numpy(place)]

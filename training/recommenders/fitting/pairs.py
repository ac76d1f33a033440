"""Draws user-item pairs with items that the user does not have, and computes their loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from training.arrays import Bools, Ints
from training.histories import Histories


class PairBatch(NamedTuple):
    """A batch of pairs: users and items int64 [batch].

    For each shift, the item shift places before a pair is its negative.
    unknown float32 [len(shifts), batch] is 1 where the user does not have that item, 0 where it
    does.
    """

    users: Tensor
    items: Tensor
    shifts: tuple[int, ...]
    unknown: Tensor


class Pairs:
    """All pairs of some histories; a user is the number of its row."""

    def __init__(self, histories: Histories, n_items: int) -> None:
        self.n_items = n_items
        self.users = np.repeat(np.arange(histories.size), histories.lengths)
        self.items = histories.items
        self._known = np.sort(self.users * n_items + self.items)

    def batches(self, rng: np.random.Generator, size: int, negatives: int) -> Iterator[PairBatch]:
        """Yields all pairs once, size at a time.

        A pair's negatives are the items of other pairs of the batch, so that they are drawn by
        popularity, as implicit's BPR does, and no vector is read for them alone.
        """
        order = rng.permutation(len(self.users))
        for start in range(0, len(order), size):
            users, items = (
                values[order[start : start + size]] for values in (self.users, self.items)
            )
            shifts = tuple(int(shift) for shift in rng.integers(1, max(len(users), 2), negatives))
            others = np.stack([np.roll(items, shift) for shift in shifts])
            unknown = ~self._has(users, others)
            yield PairBatch(
                torch.from_numpy(users),
                torch.from_numpy(items),
                shifts,
                torch.from_numpy(unknown.astype(np.float32)),
            )

    def _has(self, users: Ints, items: Ints) -> Bools:
        wanted = users * self.n_items + items
        places = np.minimum(np.searchsorted(self._known, wanted), len(self._known) - 1)
        known: Bools = self._known[places] == wanted
        return known


def bpr_loss(users: Tensor, items: Tensor, biases: Tensor, batch: PairBatch) -> Tensor:
    """Computes the mean of -log s((z . V_i + b_i) - (z . V_j + b_j)) over pairs i, negatives j.

    users z and items V_i [batch, d], biases b_i [batch].
    """
    score = (users * items).sum(dim=-1) + biases
    losses = [
        softplus((users * items.roll(shift, 0)).sum(dim=-1) + biases.roll(shift, 0) - score)
        for shift in batch.shifts
    ]
    return (torch.stack(losses) * batch.unknown).sum() / batch.unknown.sum().clamp(min=1)

"""Measures a concept's unit of strength, and its share of lists before and after steering."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from training.arrays import Bools, Doubles, Ints
from training.histories import Histories
from training.measures.metrics import Lists, exposure_share
from training.measures.scorers import best_lists
from training.recommender import Recommender
from training.saes.base import SparseAutoencoder

LIST_LENGTH = 20
"""Items of a list on which effects are measured."""
_TOP_SHARE = 0.1
"""Share of the users whose mean level defines a TYPICAL unit."""


class Audience(NamedTuple):
    """Users on whom effects are measured: z [users, d], context, and code [users, n_neurons].

    context is what else the head reads; seen [users, n_items] holds what is never returned.
    """

    recommender: Recommender
    sae: SparseAutoencoder
    z: Tensor
    context: Tensor
    code: Tensor
    seen: csr_matrix

    @classmethod
    def of(
        cls, recommender: Recommender, sae: SparseAutoencoder, histories: Histories, max_length: int
    ) -> Audience:
        """Encodes the histories; their items count as seen."""
        z, context = recommender.activations(histories, max_length)
        with torch.no_grad():
            code = sae.encode(z)
        return cls(recommender, sae, z, context, code, histories.matrix(recommender.n_items))

    def rows(self, rows: Ints) -> Audience:
        """Returns the given users, in the given order."""
        z = self.z[rows]
        context = self.context[rows]
        code = self.code[rows]
        return self._replace(z=z, context=context, code=code, seen=self.seen[rows])

    def lists(self, edit: Tensor | None = None, n: int = LIST_LENGTH) -> Lists:
        """Returns top-n lists for z' = z + scale(z) edit W_dec; the edit is [n_neurons]."""
        with torch.no_grad():
            z = (
                self.z
                if edit is None
                else self.z + self.sae.scale(self.z) * (edit @ self.sae.W_dec)
            )
            return best_lists(self.recommender.scores(z, self.context), self.seen, n)

    def levels(self, w: Tensor) -> Doubles:
        """Returns each user's level c = <s, w> / <w, w>: [users]."""
        levels: Doubles = (self.code @ w / w.dot(w)).double().numpy()
        return levels


class Effect(NamedTuple):
    """One TYPICAL unit in units of the code; mean exposure share at strength 0 and 1 (top 20)."""

    unit: float
    unsteered_share: float
    steered_share: float


def measure(audience: Audience, w: Tensor, members: Bools, unsteered: Lists) -> Effect:
    """Measures the effect of a target w [n_neurons] on the share of its members [n_items]."""
    shares = exposure_share(unsteered, members)
    unit = typical_unit(audience.levels(w))
    steered = exposure_share(audience.lists(unit * w), members)
    return Effect(unit, float(shares.mean()), float(steered.mean()))


def typical_unit(levels: Doubles) -> float:
    """Returns the mean level of the tenth of users with the highest levels, minus the mean of all.

    levels [users]. The tenth is chosen by level, not by share of their lists: few lists hold any of
    a rare concept, and the difference would be chance. 1 where all levels are equal, so that a
    positive strength always means "more".
    """
    if np.ptp(levels) == 0.0:
        return 1.0
    count = max(1, round(_TOP_SHARE * len(levels)))
    return float(np.sort(levels)[-count:].mean() - levels.mean())

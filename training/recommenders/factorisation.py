"""Defines matrix factorisation with item biases, whose users are known by their histories alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding

from training.recommender import ItemMatrix, Recommender
from training.recommenders.foldin import fold_in

_BIAS_PENALTY = 1e-4
"""On a new user's bias, which no ranking depends on: just enough to keep the system regular."""


class FoldIn(NamedTuple):
    """A new user's step: the catalogue's weight, the penalty, and conjugate-gradient steps."""

    negatives: float
    penalty: float
    steps: int


class Factorisation(Recommender):
    """score_i = z . V_i + b_i, with z a user's factors, V [n_items, d] and b [n_items].

    Training decides how V and b are learned (BPR, logistic loss). A new user's z is the
    first Newton step, from z = 0 and a = 0, towards the minimum over z and the user's bias a of

        mean_(i in history) -log s(z . V_i + b_i + a) + negatives mean_(all j) -log s(-(z . V_j +
        b_j + a)) + penalty / 2 |z|^2,         s(x) = 1 / (1 + exp(-x)),

    the logistic loss against the whole catalogue (C. C. Johnson, "Logistic Matrix Factorization for
    Implicit Feedback Data", 2014). The catalogue's part of that step is the same for everybody, so
    a step costs what ALS's fold-in costs. docs/results/fold-in.md compares it with more
    steps and other methods.
    """

    def __init__(self, n_items: int, d: int, rule: FoldIn) -> None:
        super().__init__(n_items, d, p=d)
        self.rule = rule
        self.V: Tensor
        self.b: Tensor
        self.A: Tensor
        self.A_inverse: Tensor
        self.g: Tensor
        self.register_buffer("V", torch.zeros(n_items, d))
        self.register_buffer("b", torch.zeros(n_items))
        self.register_buffer("A", torch.eye(d + 1))
        self.register_buffer("A_inverse", torch.eye(d + 1))
        self.register_buffer("g", torch.zeros(d + 1))

    def encode(self, items: Tensor, mask: Tensor) -> Tensor:
        """Computes the Newton step above, without a; 0, ranked by b alone, for an empty history."""
        length = mask.sum(dim=1, keepdim=True)
        share = mask / length.clamp(min=1)
        p = torch.sigmoid(self.b[items])
        V_u = torch.cat([embedding(items, self.V), torch.ones_like(mask).unsqueeze(-1)], dim=-1)
        r = ((share * (1 - p)).unsqueeze(1) @ V_u).squeeze(1) - self.g * length.clamp(max=1)
        return fold_in(V_u, share * p * (1 - p), r, self.A, self.A_inverse, self.rule.steps)[
            :, : self.d
        ]

    def item_matrix(self) -> ItemMatrix:
        """Returns V and b."""
        return ItemMatrix(self.V, self.b)

    @torch.no_grad()
    def set_items(self, V: Tensor, b: Tensor) -> None:
        """Takes V [n_items, d], b [n_items]; computes the catalogue's part of Newton steps."""
        self.V.copy_(V)
        self.b.copy_(b)
        with_bias = torch.cat([V, V.new_ones(self.n_items, 1)], dim=1).double()
        p = torch.sigmoid(b).double().unsqueeze(1)
        penalties = with_bias.new_full((self.d + 1,), self.rule.penalty)
        penalties[-1] = _BIAS_PENALTY
        A = (
            self.rule.negatives / self.n_items * with_bias.T @ (p * (1 - p) * with_bias)
            + penalties.diag()
        )
        self.A.copy_(A)
        self.A_inverse.copy_(torch.linalg.inv(A))
        self.g.copy_(self.rule.negatives * (p * with_bias).mean(dim=0))

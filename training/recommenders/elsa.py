"""Defines ELSA, a linear shallow autoencoder with a low-rank, scale-free item-item matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from training.pooling import masked_sum
from training.recommender import ItemMatrix, Recommender


class Elsa(Recommender):
    """score = ReLU(x A A^T - x), with A [n_items, d] of unit rows; z = x A.

    V. Vancura et al., "Scalable Linear Shallow Autoencoder for Collaborative Filtering", RecSys
    2022. The -x term keeps an item from recommending itself in training; online, seen items are
    never returned, and the ReLU does not change the order of the others.
    """

    def __init__(self, n_items: int, d: int) -> None:
        super().__init__(n_items, d, p=d)
        self.A = nn.Parameter(normalize(torch.empty(n_items, d).normal_(), dim=-1))

    def encode(self, items: Tensor, mask: Tensor) -> Tensor:
        """Computes z = x A: the sum of the history's item vectors."""
        return masked_sum(self.A, items, mask)

    def item_matrix(self) -> ItemMatrix:
        """Returns V = A, no biases."""
        return ItemMatrix(self.A.detach(), torch.zeros(self.n_items))

    @torch.no_grad()
    def drop_parallel_gradient(self) -> None:
        """Removes the gradient along A's rows: what is left is that of the normalised rows."""
        if self.A.grad is not None:
            self.A.grad -= (self.A.grad * self.A).sum(dim=-1, keepdim=True) * self.A

    @torch.no_grad()
    def normalise_rows(self) -> None:
        """Puts the rows of A back to unit norm after a step."""
        self.A.copy_(normalize(self.A, dim=-1))

"""ELSA: a linear shallow autoencoder with a low-rank, scale-free item-item matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, normalize, relu

from training.recommenders.base import ItemMatrix, Recommender


class Elsa(Recommender):
    """score = ReLU(x A A^T - x), with A [n_items, d] of unit rows; z = x A.

    V. Vancura et al., "Scalable Linear Shallow Autoencoder for Collaborative Filtering", RecSys 2022. The -x
    term keeps an item from recommending itself in training; online, seen items are never returned.
    """

    def __init__(self, n_items: int, d: int) -> None:
        super().__init__(n_items, d, p=d)
        self.A = nn.Parameter(normalize(torch.empty(n_items, d).normal_(), dim=-1))

    def encode(self, items: Tensor, mask: Tensor) -> Tensor:
        """Z = x A: the sum of the history's item vectors."""
        return (embedding(items, self.A) * mask.unsqueeze(-1)).sum(dim=1)

    def item_matrix(self) -> ItemMatrix:
        """V = A, no biases."""
        return ItemMatrix(self.A.detach(), torch.zeros(self.n_items))

    def forward(self, x: Tensor, x_input: Tensor) -> Tensor:
        """x_input [batch, n_items], what is shown of x -> ReLU(x_input A A^T - x_input) [batch, n_items]."""
        A = normalize(self.A, dim=-1)
        return relu(x_input @ A @ A.T - x_input)

    @torch.no_grad()
    def normalise_rows(self) -> None:
        """Puts the rows of A back to unit norm after a step."""
        self.A.copy_(normalize(self.A, dim=-1))

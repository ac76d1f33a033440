"""Defines PureSVD, the truncated singular value decomposition of the user-item matrix."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds
from torch import Tensor
from torch.nn.functional import embedding

from training.recommender import ItemMatrix, Recommender


class PureSvd(Recommender):
    """X ~ U S V^T; z = x V, score = x V V^T; V [n_items, d]: the first d right singular vectors.

    P. Cremonesi et al., "Performance of Recommender Algorithms on Top-N Recommendation Tasks",
    RecSys 2010.
    """

    def __init__(self, n_items: int, d: int) -> None:
        super().__init__(n_items, d, p=d)
        self.V: Tensor
        self.register_buffer("V", torch.zeros(n_items, d))

    def encode(self, items: Tensor, mask: Tensor) -> Tensor:
        """Computes z = x V."""
        return (embedding(items, self.V) * mask.unsqueeze(-1)).sum(dim=1)

    def item_matrix(self) -> ItemMatrix:
        """Returns V, no biases."""
        return ItemMatrix(self.V, torch.zeros(self.n_items))

    @classmethod
    def of(cls, V: Tensor) -> PureSvd:
        """Makes the model with the given singular vectors, [n_items, d]."""
        model = cls(*V.shape)
        model.V.copy_(V)
        return model


def singular_vectors(X: csr_matrix, rank: int) -> Tensor:
    """Computes the first right singular vectors of X [n_users, n_items].

    -> float32 [n_items, rank].

    Signs are fixed (the largest entry of each vector is positive), so that the same data give the
    same bytes.
    """
    start = np.random.default_rng(0).normal(size=min(X.shape))
    _, values, Vt = svds(X.astype(np.float64), k=rank, v0=start)
    V = Vt[np.argsort(-values, kind="stable")].T
    V = V * np.sign(V[np.abs(V).argmax(axis=0), np.arange(rank)])
    return torch.from_numpy(np.ascontiguousarray(V, dtype=np.float32))

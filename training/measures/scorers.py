"""Scores every item for a history: the recommender, its SAE's reconstruction, and references."""

from __future__ import annotations

from typing import NamedTuple, Protocol, Self

import numpy as np
import scipy.linalg
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from training.histories import Histories
from training.measures.metrics import Lists
from training.recommender import Recommender
from training.saes.base import SparseAutoencoder


class Scorer(Protocol):
    """Scores every item for each history."""

    def scores(self, histories: Histories) -> Tensor:
        """Returns float32 [len(histories), n_items]."""


class ModelScorer(NamedTuple):
    """Scores by the recommender as it is."""

    recommender: Recommender
    max_length: int

    def scores(self, histories: Histories) -> Tensor:
        """Returns V head(z, context) + b."""
        with torch.no_grad():
            return self.recommender.scores(
                *self.recommender.activations(histories, self.max_length)
            )


class ReconstructedScorer(NamedTuple):
    """Scores with z replaced by the SAE's reconstruction: mode RECONSTRUCT without edits."""

    recommender: Recommender
    sae: SparseAutoencoder
    max_length: int

    def scores(self, histories: Histories) -> Tensor:
        """Returns V head(scale(z) D(s), context) + b."""
        with torch.no_grad():
            z, context = self.recommender.activations(histories, self.max_length)
            return self.recommender.scores(self.sae.reconstruct(z), context)


class PopularityScorer(NamedTuple):
    """Gives every user the same scores: popularity [n_items]."""

    popularity: Tensor

    def scores(self, histories: Histories) -> Tensor:
        """Returns the training users' counts."""
        return self.popularity.expand(histories.size, -1)


class EaseScorer(NamedTuple):
    """EASE: score = x B with B = I - P / diag(P), P = (X^T X + lam I)^-1, and a zero diagonal.

    H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019. B [n_items, n_items].
    """

    B: Tensor
    max_length: int

    @classmethod
    def fit(cls, X: csr_matrix, lam: float, max_length: int) -> Self:
        """Fits B to X [n_users, n_items] of the training users; lam is the ridge penalty."""
        G = (X.T @ X).toarray().astype(np.float64)
        G[np.diag_indices_from(G)] += lam
        P = scipy.linalg.inv(G, overwrite_a=True, check_finite=False)
        B = P / -np.diag(P)
        np.fill_diagonal(B, 0.0)
        return cls(torch.from_numpy(B.astype(np.float32)), max_length)

    def scores(self, histories: Histories) -> Tensor:
        """Returns X B."""
        X = histories.last(self.max_length).matrix(len(self.B))
        return torch.from_numpy(X @ self.B.numpy())


def best_lists(scores: Tensor, seen: csr_matrix, n: int) -> Lists:
    """Returns the n best unseen items, best first: scores [users, n_items] -> [users, n]."""
    rows = np.repeat(np.arange(seen.shape[0], dtype=np.int64), np.diff(seen.indptr))
    masked = scores.clone()
    masked[torch.from_numpy(rows), torch.from_numpy(seen.indices.astype(np.int64))] = -torch.inf
    values, items = torch.topk(masked, min(n, masked.shape[1]), dim=-1)
    lists = torch.where(values > -torch.inf, items, -1).numpy()
    missing = n - lists.shape[1]
    return np.pad(lists, ((0, 0), (0, missing)), constant_values=-1) if missing else lists


def recommend(
    scorer: Scorer, histories: Histories, n_items: int, n: int, batch_size: int = 256
) -> Lists:
    """Returns top-n lists without seen items, [len(histories), n].

    Scores are held for batch_size users at a time.
    """
    parts = [
        best_lists(scorer.scores(part), part.matrix(n_items), n)
        for part in histories.batches(batch_size)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, n), dtype=np.int64)

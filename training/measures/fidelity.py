"""Measures the SAE's cost: its reconstruction's lists and embeddings against the originals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.arrays import Ints
from training.measures import metrics
from training.measures.scorers import ModelScorer, ReconstructedScorer, recommend
from training.recommender import Recommender
from training.saes.base import SparseAutoencoder
from training.splits import Split


class Fidelity(NamedTuple):
    """Means over held-out users; mode RECONSTRUCT, no edit.

    ndcg_loss is 1 - reconstructed / unsteered nDCG, ndcg_loss_error the standard error of the
    paired difference over the unsteered mean; overlap the share of the top n that both lists hold;
    cosine between z and its reconstruction; l0 the mean number of active neurons; fvu the fraction
    of variance of normalised z unexplained; dead_share the share of the neurons that no training
    user activates.
    """

    ndcg: float
    reconstructed_ndcg: float
    ndcg_loss: float
    ndcg_loss_error: float
    overlap: float
    cosine: float
    l0: float
    fvu: float
    dead_share: float


def measure_fidelity(
    recommender: Recommender,
    sae: SparseAutoencoder,
    split: Split,
    users: Ints,
    max_length: int,
    n: int = 20,
) -> Fidelity:
    """Measures the cost of the SAE for the given held-out users."""
    histories = split.histories(users)
    targets = split.targets(users)
    own = recommend(ModelScorer(recommender, max_length), histories, split.n_items, n)
    rebuilt = recommend(
        ReconstructedScorer(recommender, sae, max_length), histories, split.n_items, n
    )
    before = metrics.ndcg(own, targets)
    after = metrics.ndcg(rebuilt, targets)
    with torch.no_grad():
        z = recommender.embed(histories, max_length)
        code = sae.encode(z)
        y = sae.normalised(z)
        y_hat = sae.decode(code)
    lost = before - after
    return Fidelity(
        ndcg=float(before.mean()),
        reconstructed_ndcg=float(after.mean()),
        ndcg_loss=float(lost.mean() / before.mean()),
        ndcg_loss_error=float(lost.std(ddof=1) / np.sqrt(len(lost)) / before.mean())
        if len(lost) > 1
        else 0.0,
        overlap=float(metrics.overlap(own, rebuilt).mean()),
        cosine=float(torch.cosine_similarity(y, y_hat).mean()),
        l0=float((code > 0).sum(dim=-1).float().mean()),
        fvu=float((y - y_hat).square().sum() / (y - y.mean(dim=0)).square().sum()),
        dead_share=float((~fired_neurons(recommender, sae, split, max_length)).float().mean()),
    )


def fired_neurons(
    recommender: Recommender,
    sae: SparseAutoencoder,
    split: Split,
    max_length: int,
    batch_size: int = 1024,
) -> Tensor:
    """Flags the neurons that are active for any training user's whole history: bool [n_neurons]."""
    fired = torch.zeros(sae.n_neurons, dtype=torch.bool)
    with torch.no_grad():
        for histories in split.histories(split.train).batches(batch_size):
            fired |= (sae.encode(recommender.embed(histories, max_length)) > 0).any(dim=0)
    return fired

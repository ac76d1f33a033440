"""Computes AuxK, by which dead neurons learn from the residual (arXiv 2406.04093, appendix A.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, relu

from training.saes.base import SparseAutoencoder, largest


def auxk_loss(
    sae: SparseAutoencoder, pre: Tensor, residual: Tensor, dead: Tensor, k_aux: int
) -> Tensor:
    """Measures how badly the k_aux largest dead neurons reconstruct the residual.

    0 if none is dead.

    pre [batch, n_neurons] before ReLU and the sparsity rule; residual [batch, d] = y - y_hat,
    detached here; dead bool [n_neurons]. The mean squared error is divided by the residual's own
    variance, so 1 means "nothing explained".
    """
    neurons = dead.nonzero().squeeze(-1)
    if not len(neurons):
        return residual.new_zeros(())
    target = residual.detach()
    dead = pre[:, neurons]
    places = largest(dead, min(k_aux, len(neurons)))
    activations = relu(dead.gather(-1, places))
    rebuilt = embedding_bag(neurons[places], sae.W_dec, per_sample_weights=activations, mode="sum")
    variance = (target - target.mean(dim=0)).square().mean()
    return (rebuilt - target).square().mean() / variance.clamp_min(torch.finfo(variance.dtype).tiny)

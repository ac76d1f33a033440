"""AuxK: dead neurons learn from what the living ones leave over (arXiv 2406.04093, appendix A.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from training.saes.base import SparseAutoencoder


def auxk_loss(
    sae: SparseAutoencoder, activations: Tensor, residual: Tensor, dead: Tensor, k_aux: int
) -> Tensor:
    """How badly the k_aux largest dead neurons reconstruct the residual: a scalar, 0 where no neuron is dead.

    activations [batch, n_neurons] before the sparsity rule; residual [batch, d] = y - y_hat, detached here;
    dead bool [n_neurons]. The mean squared error is divided by the residual's own variance, so 1 means
    "nothing explained".
    """
    count = min(k_aux, int(dead.sum()))
    if count == 0:
        return residual.new_zeros(())
    target = residual.detach()
    values, neurons = torch.topk(activations.masked_fill(~dead, 0.0), count, dim=-1)
    code = torch.zeros_like(activations).scatter(-1, neurons, values)
    error = (code @ sae.W_dec - target).square().mean()
    variance = (target - target.mean(dim=0)).square().mean()
    return error / variance.clamp_min(torch.finfo(variance.dtype).tiny)

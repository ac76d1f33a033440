"""Sparse autoencoders: one model, sparsity rules passed in; and the registry of those that can be trained."""

from training.saes.base import SparseAutoencoder, SparseCode, Sparsity
from training.saes.fitting import SaeKind, TopKOptions, fit_sae
from training.saes.topk import TopK

SAES: dict[str, SaeKind] = {
    "topk": SaeKind(
        TopKOptions, lambda options, d: SparseAutoencoder(d, options.n_neurons(d), TopK(options.k))
    ),
}

__all__ = ["SAES", "SaeKind", "SparseAutoencoder", "SparseCode", "Sparsity", "fit_sae"]

"""Sparse autoencoders: one model with exchangeable sparsity rules, and the registry of kinds."""

from training.fit import SaeKind
from training.saes.base import SparseAutoencoder, SparseCode, Sparsity
from training.saes.batchtopk import BatchTopK
from training.saes.fitting import SaeTask, sae_kind
from training.saes.jumprelu import JumpRelu
from training.saes.matryoshka import MatryoshkaTask
from training.saes.options import (
    BatchTopKOptions,
    JumpReluOptions,
    MatryoshkaOptions,
    ReluOptions,
    SaeOptions,
    TiedOptions,
    TopKOptions,
)
from training.saes.penalised import PenalisedTask
from training.saes.relu import Relu
from training.saes.tied import TiedTask
from training.saes.topk import TopK


def _relu(_options: SaeOptions, n_neurons: int) -> Sparsity:
    return Relu(n_neurons)


def _batchtopk(options: BatchTopKOptions, n_neurons: int) -> Sparsity:
    return BatchTopK(n_neurons, options.k, options.momentum)


SAES: dict[str, SaeKind[SparseAutoencoder]] = {
    "relu": sae_kind(ReluOptions, _relu, PenalisedTask),
    "topk": sae_kind(TopKOptions, lambda options, _: TopK(options.k), SaeTask),
    "batchtopk": sae_kind(BatchTopKOptions, _batchtopk, SaeTask),
    "jumprelu": sae_kind(
        JumpReluOptions, lambda options, n: JumpRelu(n, options.k, options.bandwidth), PenalisedTask
    ),
    "matryoshka": sae_kind(MatryoshkaOptions, _batchtopk, MatryoshkaTask),
    "tied": sae_kind(TiedOptions, _relu, TiedTask),
}

__all__ = ["SAES", "SaeKind", "SparseAutoencoder", "SparseCode", "Sparsity"]

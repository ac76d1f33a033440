"""Sparse autoencoders: one model, sparsity rules passed in; and the registry of those that can be trained."""

from training.saes.base import SparseAutoencoder, SparseCode, Sparsity
from training.saes.batchtopk import BatchTopK
from training.saes.fitting import SaeKind, SaeTask
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


def _relu(options: SaeOptions, n_neurons: int) -> Sparsity:
    return Relu(n_neurons)


def _batchtopk(options: BatchTopKOptions, n_neurons: int) -> Sparsity:
    return BatchTopK(n_neurons, options.k, options.momentum)


SAES: dict[str, SaeKind] = {
    "relu": SaeKind(ReluOptions, _relu, PenalisedTask),
    "topk": SaeKind(TopKOptions, lambda options, _: TopK(options.k), SaeTask),
    "batchtopk": SaeKind(BatchTopKOptions, _batchtopk, SaeTask),
    "jumprelu": SaeKind(
        JumpReluOptions, lambda options, n: JumpRelu(n, options.k, options.bandwidth), PenalisedTask
    ),
    "matryoshka": SaeKind(MatryoshkaOptions, _batchtopk, MatryoshkaTask),
    "tied": SaeKind(TiedOptions, _relu, TiedTask),
}

__all__ = ["SAES", "SaeKind", "SparseAutoencoder", "SparseCode", "Sparsity"]

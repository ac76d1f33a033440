"""The sparse autoencoder as equations; the sparsity rule is a part that is passed in."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, relu


class SparseCode(NamedTuple):
    """The active neurons of a code, largest first: neurons int64 and activations float32, both [batch, k].

    Entries with activation 0 mean "none".
    """

    neurons: Tensor
    activations: Tensor


class Sparsity(Protocol):
    """Which activations stay."""

    @property
    def name(self) -> str:
        """The rule's name in the registry."""

    @property
    def k(self) -> int:
        """Most neurons that stay active in one code."""

    def __call__(self, activations: Tensor) -> Tensor:
        """Non-negative [batch, n_neurons] -> the same with all but the kept ones 0."""

    def select(self, activations: Tensor) -> SparseCode:
        """Non-negative [batch, n_neurons] -> the kept ones."""


class SparseAutoencoder(nn.Module):
    """s = sparsity(ReLU((z / scale(z) - b_dec) W_enc + b_enc)), D(s) = s W_dec + b_dec ~ z / scale(z).

    scale(z) = scale_factor ||z||, and scale_factor where z = 0, so that a code does not depend on a history's
    length. W_enc [d, n_neurons], b_enc [n_neurons], W_dec [n_neurons, d] with rows of unit norm, b_dec [d];
    W_enc starts as the transpose of W_dec (L. Gao et al., "Scaling and evaluating sparse autoencoders",
    arXiv 2406.04093).
    """

    def __init__(self, d: int, n_neurons: int, sparsity: Sparsity) -> None:
        super().__init__()
        self.d, self.n_neurons, self.sparsity = d, n_neurons, sparsity
        self.scale_factor = 1.0
        self.W_dec = nn.Parameter(normalize(torch.empty(n_neurons, d).normal_(), dim=-1))
        self.W_enc = nn.Parameter(self.W_dec.detach().T.clone())
        self.b_enc = nn.Parameter(torch.zeros(n_neurons))
        self.b_dec = nn.Parameter(torch.zeros(d))

    @property
    def k(self) -> int:
        """Most neurons that one code has active."""
        return self.sparsity.k

    def scale(self, z: Tensor) -> Tensor:
        """[batch, d] -> [batch, 1], what z is divided by."""
        norm = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
        return self.scale_factor * torch.where(norm > 0, norm, torch.ones_like(norm))

    def activations(self, z: Tensor) -> Tensor:
        """ReLU of the pre-activations, before the sparsity rule: [batch, d] -> [batch, n_neurons]."""
        return relu((z / self.scale(z) - self.b_dec) @ self.W_enc + self.b_enc)

    def encode(self, z: Tensor) -> Tensor:
        """Raw z [batch, d] -> code [batch, n_neurons]."""
        return self.sparsity(self.activations(z))

    def encode_sparse(self, z: Tensor) -> SparseCode:
        """Raw z [batch, d] -> its active neurons. Traceable to ONNX."""
        return self.sparsity.select(self.activations(z))

    def decode(self, code: Tensor) -> Tensor:
        """[batch, n_neurons] -> D(s) [batch, d], in normalised space: denorm is scale(z) D(s)."""
        return code @ self.W_dec + self.b_dec

    def reconstruct(self, z: Tensor) -> Tensor:
        """Z -> scale(z) D(encode(z)), [batch, d]."""
        return self.scale(z) * self.decode(self.encode(z))

    @torch.no_grad()
    def normalise_rows(self) -> None:
        """Puts the decoder rows back to unit norm after a step."""
        self.W_dec.copy_(normalize(self.W_dec, dim=-1))

    @torch.no_grad()
    def drop_parallel_gradient(self) -> None:
        """Removes the part of W_dec's gradient along its rows, which normalise_rows would undo anyway."""
        if self.W_dec.grad is not None:
            along = (self.W_dec.grad * self.W_dec).sum(dim=-1, keepdim=True)
            self.W_dec.grad -= along * self.W_dec

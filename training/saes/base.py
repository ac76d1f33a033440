"""Defines the sparse autoencoder as equations; the rule and the normalisation are passed in."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, normalize

from training.saes.normalisation import Normalisation, UnitNorm


class SparseCode(NamedTuple):
    """The active neurons of a code: neurons int64 and activations float32, both [batch, k].

    Entries with activation 0 mean "none".
    """

    neurons: Tensor
    activations: Tensor


class Sparsity(nn.Module, ABC):
    """A rule that selects active neurons by pre-activations; k is the most that a code keeps."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    @abstractmethod
    def keep(self, pre: Tensor) -> Tensor:
        """Applies ReLU and the rule, but not yet k: both [batch, n_neurons].

        Traceable to ONNX in evaluation.
        """

    def select(self, pre: Tensor) -> SparseCode:
        """Selects the k largest kept activations, largest first: [batch, n_neurons] -> code."""
        activations, neurons = torch.topk(self.keep(pre), self.k, dim=-1)
        return SparseCode(neurons, activations)

    def forward(self, pre: Tensor) -> Tensor:
        """Selects the same, dense: [batch, n_neurons]."""
        kept = self.select(pre)
        return torch.zeros_like(pre).scatter(-1, kept.neurons, kept.activations)

    def training_code(self, pre: Tensor) -> Tensor | SparseCode:
        """Returns the code to decode while training, in the form that is cheaper to decode."""
        return self.keep(pre)

    def start(self, pre: Tensor) -> None:
        """Fits the rule, before training, to untrained pre-activations [batch, n_neurons]."""

    def cap(self, most: int) -> None:
        """Sets k, after training, from the largest number of neurons in any training code."""


class Uncounted(Sparsity):
    """A rule that fixes no number of active neurons.

    k is n_neurons until cap gives it room for the largest training code. It is part of the
    state, so that a loaded rule has the k that it was saved with.
    """

    def __init__(self, n_neurons: int) -> None:
        super().__init__(n_neurons)
        self.n_neurons = n_neurons

    def cap(self, most: int) -> None:
        """Sets k to a tenth more than the largest training code, at most n_neurons."""
        self.k = min(max(1, math.ceil(1.1 * most)), self.n_neurons)

    def get_extra_state(self) -> Tensor:
        """Returns k, for the state dict."""
        return torch.tensor(self.k)

    def set_extra_state(self, state: Tensor) -> None:
        """Takes k from a state dict."""
        self.k = int(state)


class SparseAutoencoder(nn.Module):
    """s = sparsity((y - b_dec) W_enc + b_enc), D(s) = s W_dec + b_dec ~ y.

    y = (z - shift(z)) / scale(z).

    scale(z) is scale_factor times the normalisation's. W_enc [d, n_neurons], b_enc [n_neurons],
    W_dec [n_neurons, d] with rows of unit norm, b_dec [d]; W_enc starts as the transpose of W_dec
    (L. Gao et al., "Scaling and evaluating sparse autoencoders", arXiv 2406.04093).
    """

    def __init__(
        self, d: int, n_neurons: int, sparsity: Sparsity, normalisation: Normalisation | None = None
    ) -> None:
        super().__init__()
        self.d = d
        self.n_neurons = n_neurons
        self.sparsity = sparsity
        self.normalisation = normalisation or UnitNorm()
        self.scale_factor = 1.0
        self.W_dec = nn.Parameter(normalize(torch.empty(n_neurons, d).normal_(), dim=-1))
        self.W_enc = nn.Parameter(self.W_dec.detach().T.clone())
        self.b_enc = nn.Parameter(torch.zeros(n_neurons))
        self.b_dec = nn.Parameter(torch.zeros(d))

    @property
    def k(self) -> int:
        """Returns the most neurons that one code has active."""
        return self.sparsity.k

    @property
    def scale_rule(self) -> str:
        """Returns the normalisation's name."""
        return self.normalisation.name

    def scale(self, z: Tensor) -> Tensor:
        """Computes the divisor of z - shift(z): [batch, d] -> [batch, 1]."""
        return self.scale_factor * self.normalisation.scale(z)

    def shift(self, z: Tensor) -> Tensor:
        """Computes the value subtracted from each of z's entries: [batch, d] -> [batch, 1]."""
        return self.normalisation.shift(z)

    def normalised(self, z: Tensor) -> Tensor:
        """Maps raw z [batch, d] -> y [batch, d]."""
        return (z - self.shift(z)) / self.scale(z)

    def pre_activations(self, y: Tensor) -> Tensor:
        """Computes the input of ReLU and the sparsity rule: y [batch, d] -> [batch, n_neurons]."""
        # b_dec is taken to the neurons' side: its gradient then costs no product with W_enc^T.
        return torch.addmm(self.b_enc - self.b_dec @ self.W_enc, y, self.W_enc)

    def encode(self, z: Tensor) -> Tensor:
        """Encodes raw z [batch, d] -> code [batch, n_neurons]."""
        code: Tensor = self.sparsity(self.pre_activations(self.normalised(z)))
        return code

    def encode_sparse(self, z: Tensor) -> SparseCode:
        """Encodes raw z [batch, d] -> its active neurons, largest first. Traceable to ONNX."""
        return self.sparsity.select(self.pre_activations(self.normalised(z)))

    def decode(self, code: Tensor | SparseCode) -> Tensor:
        """Decodes [batch, n_neurons], or active neurons -> D(s) [batch, d], in normalised space."""
        if isinstance(code, SparseCode):
            rows = embedding_bag(
                code.neurons, self.W_dec, per_sample_weights=code.activations, mode="sum"
            )
            return rows + self.b_dec
        return code @ self.W_dec + self.b_dec

    def reconstruct(self, z: Tensor) -> Tensor:
        """Maps z -> scale(z) D(encode(z)) + shift(z), [batch, d]."""
        return self.scale(z) * self.decode(self.encode(z)) + self.shift(z)

    @torch.no_grad()
    def rescale(self, factor: float) -> None:
        """Multiplies every reconstruction by factor and leaves every code as it is."""
        self.scale_factor *= factor
        self.b_enc.add_(self.b_dec @ self.W_enc, alpha=factor - 1)
        self.W_enc.mul_(factor)

    @torch.no_grad()
    def normalise_rows(self) -> None:
        """Puts the decoder rows back to unit norm after a step."""
        self.W_dec.copy_(normalize(self.W_dec, dim=-1))

    @torch.no_grad()
    def drop_parallel_gradient(self) -> None:
        """Removes W_dec's gradient along its rows, which normalise_rows would undo anyway."""
        if self.W_dec.grad is not None:
            along = (self.W_dec.grad * self.W_dec).sum(dim=-1, keepdim=True)
            self.W_dec.grad -= along * self.W_dec


def largest(values: Tensor, k: int) -> Tensor:
    """Finds the places of the k largest of each row, in no order: int64 [batch, k]."""
    values = values.detach()
    if values.device.type != "cpu":
        return torch.topk(values, k, dim=-1, sorted=False).indices
    # numpy's vectorised partition takes an eighth of the time of torch's topk on a CPU (without
    # many equals).
    return torch.from_numpy(np.argpartition(values.numpy(), -k, axis=-1)[:, -k:])

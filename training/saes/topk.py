"""TopK: the k largest activations of each sample stay (A. Makhzani and B. Frey, arXiv 1312.5663)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from training.errors import ConfigError
from training.saes.base import SparseCode


@dataclass(frozen=True)
class TopK:
    """Keeps the k largest."""

    k: int
    name: str = "topk"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k is {self.k}, expected at least 1 active neuron")

    def __call__(self, activations: Tensor) -> Tensor:
        """[batch, n_neurons] -> the same with all but the k largest of each row 0."""
        kept = self.select(activations)
        return torch.zeros_like(activations).scatter(-1, kept.neurons, kept.activations)

    def select(self, activations: Tensor) -> SparseCode:
        """[batch, n_neurons] -> the k largest of each row, largest first."""
        values, neurons = torch.topk(activations, self.k, dim=-1)
        return SparseCode(neurons, values)

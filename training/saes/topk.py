"""Defines TopK, which keeps each sample's k largest (Makhzani and Frey, arXiv 1312.5663)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from training.errors import ConfigError
from training.saes.base import SparseCode, Sparsity, largest


class TopK(Sparsity):
    """Keeps the k largest of each row."""

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ConfigError(f"k: expected at least 1 active neuron, found {k}")
        super().__init__(k)

    def keep(self, pre: Tensor) -> Tensor:
        """Applies ReLU alone: select keeps the k largest."""
        return relu(pre)

    def training_code(self, pre: Tensor) -> SparseCode:
        """Selects the k largest, in no order."""
        neurons = largest(pre, self.k)
        return SparseCode(neurons, relu(pre.gather(-1, neurons)))

"""Defines ReLU with an L1 penalty, the "basic" SAE of arXiv 2601.11182."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from training.saes.base import Uncounted


class Relu(Uncounted):
    """Keeps all that is positive."""

    def keep(self, pre: Tensor) -> Tensor:
        """Applies ReLU."""
        return relu(pre)

    def penalty(self, pre: Tensor) -> Tensor:
        """Computes the mean L1 norm of the codes."""
        return relu(pre).sum(dim=-1).mean()

"""ReLU: every positive activation stays, and an L1 penalty keeps them few ("basic" in arXiv 2601.11182)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from training.saes.base import Uncounted


class Relu(Uncounted):
    """Keeps all that is positive."""

    def keep(self, pre: Tensor) -> Tensor:
        """ReLU."""
        return relu(pre)

    def penalty(self, pre: Tensor) -> Tensor:
        """Mean L1 norm of the codes."""
        return relu(pre).sum(dim=-1).mean()

"""Trains SAEs whose codes a penalty keeps sparse.

The penalty's weight is given, or follows the number of active neurons.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from training.fit import FitContext
from training.recommender import Recommender
from training.saes.base import SparseAutoencoder, SparseCode
from training.saes.fitting import SaeTask
from training.saes.options import PenalisedOptions

_FIRST_WEIGHT = 1e-2
"""First weight of a penalty that adapts; larger starts sparser."""
_RATE = 0.05
"""Change of the weight's logarithm a step, per unit of (l0 / k - 1); larger adapts faster."""


class Penalised(Protocol):
    """A sparsity rule with a penalty."""

    def penalty(self, pre: Tensor) -> Tensor:
        """Maps [batch, n_neurons] before the rule -> a scalar, smaller for sparser codes."""


class PenalisedTask(SaeTask):
    """The training task of penalised SAEs: error, AuxK and penalty.

    Without a fixed weight, the logarithm of the penalty's weight moves at each step by _RATE times
    how far the batch's mean l0 is from k, in units of k: it comes to rest only where l0 is k.
    """

    options: PenalisedOptions

    def __init__(
        self,
        sae: SparseAutoencoder,
        options: PenalisedOptions,
        recommender: Recommender,
        context: FitContext,
    ) -> None:
        super().__init__(sae, options, recommender, context)
        self.weight = torch.tensor(options.penalty or self.first_weight(), device=context.device)
        self.memory["weight"] = self.weight

    def first_weight(self) -> float:
        """Returns the first weight of a penalty that adapts: small compared with the error."""
        return _FIRST_WEIGHT

    def loss_of(self, y: Tensor, pre: Tensor, code: Tensor | SparseCode) -> Tensor:
        """Computes the error in units of the mean's error, AuxK, and the weighted penalty."""
        loss = super().loss_of(y, pre, code) + self.weight.clone() * self.penalty(pre)
        if not self.options.penalty:
            self._adapt(code)
        return loss

    def penalty(self, pre: Tensor) -> Tensor:
        """Computes the rule's penalty."""
        rule: Penalised = self.module.sparsity  # type: ignore[assignment]
        return rule.penalty(pre)

    @torch.no_grad()
    def _adapt(self, code: Tensor | SparseCode) -> None:
        active = code.activations if isinstance(code, SparseCode) else code
        l0 = (active > 0).sum(dim=-1).float().mean()
        self.weight.mul_(torch.exp(_RATE * (l0 / self.options.k - 1).clamp(-1, 1)))

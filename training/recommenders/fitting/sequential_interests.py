"""Trains TiMiRec: first the interests, then together with them the predictor that mixes them."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, kl_div

from training.fit import FitContext
from training.loop import FitResult
from training.options import Count, CountOrZero, Positive, PositiveOrZero, options
from training.recommenders.fitting.sequential import SequentialOptions
from training.recommenders.fitting.sequential_causal import CausalBatch, CausalTask
from training.recommenders.fitting.sequential_losses import full_cross_entropy
from training.recommenders.timirec import Interests, TimiRec


@options
class TimiRecOptions(SequentialOptions):
    """Options of TiMiRec."""

    interests: Count = 4
    """Interest vectors of a user."""
    attention: Count = 8
    """Width of the attention that gathers them."""
    temperature: Positive = 1.0
    """Softens the target's and the predicted distribution over interests where they are
    compared."""
    distillation: PositiveOrZero = 1.0
    """Weight of that comparison; 0 leaves it out."""
    warm_up: CountOrZero = 5
    """First epochs, which use the interest that fits the target best instead of the mixture."""

    title: ClassVar[str] = "TiMiRec"


class InterestTask(CausalTask):
    """The training task that predicts the next item after every item from the interests.

    memory counts the steps.
    """

    options: TimiRecOptions

    def __init__(self, model: TimiRec, options: TimiRecOptions, context: FitContext) -> None:
        super().__init__(model, options, context, first=False)
        self.steps = torch.zeros((), dtype=torch.int64)
        self.memory = {"steps": self.steps}
        per_epoch = -(-self.histories.size // options.batch_size)
        self.warm_up_steps = options.warm_up * per_epoch

    def loss(self, batch: CausalBatch) -> Tensor:
        """Computes cross-entropy + weight temperature^2 KL(target's interests || predicted)."""
        m, p = self._along(batch)
        targets = torch.cat([items[mask > 0] for items, mask in batch.targets])
        V = self.module.token.weight
        if self.steps < self.warm_up_steps:
            best = (m @ V[targets].unsqueeze(-1)).squeeze(-1).argmax(dim=1)
            return full_cross_entropy(m[torch.arange(len(m)), best], V, targets)
        z = Interests(m, p).mixed()
        loss = full_cross_entropy(z, V, targets)
        t = cosine_similarity(m, V[targets].unsqueeze(1), dim=-1)
        temperature = self.options.temperature
        wanted = (t.detach() / temperature).softmax(dim=-1)
        apart = kl_div((p / temperature).log_softmax(dim=-1), wanted, reduction="batchmean")
        return loss + self.options.distillation * temperature**2 * apart

    def after_step(self) -> None:
        """Counts the step."""
        self.steps += 1

    def _along(self, batch: CausalBatch) -> Interests:
        """Computes the interests after every input item: m [slots, K, d] and p [slots, K]."""
        parts = []
        for items, mask in batch.inputs:
            interests = self.module.interests(items, mask)
            filled = mask > 0
            parts.append((interests.m[:, :-1][filled], interests.p[:, :-1][filled]))
        return Interests(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def train_timirec(model: TimiRec, options: TimiRecOptions, context: FitContext) -> FitResult:
    """Trains TiMiRec with early stopping on the validation users."""
    return context.optimise(InterestTask(model, options, context), options.schedule())

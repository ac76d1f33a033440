"""Trains SASRec and GPT: every item of a history is predicted from those before it."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.fit import FitContext
from training.histories import Histories, PaddedHistories
from training.loop import FitResult
from training.options import Count, options
from training.recommenders.fitting.sequential import (
    SequentialOptions,
    SequentialTask,
    TransformerOptions,
)
from training.recommenders.fitting.sequential_losses import (
    binary_cross_entropy,
    full_cross_entropy,
    sampled_cross_entropy,
)
from training.recommenders.gpt import Gpt
from training.recommenders.sasrec import SasRec
from training.recommenders.timirec import TimiRec
from training.recommenders.transformer import TransformerRecommender

Loss = Literal["full", "sampled", "binary"]


@options
class SasRecOptions(TransformerOptions):
    """Options of SASRec."""

    loss: Loss = "full"
    """full: cross-entropy over all items; sampled: over the next item and `negatives` random ones,
    the same for a whole step; binary: the paper's, one random item against each next item."""
    negatives: Count = 512
    """Random items a step of the sampled loss."""

    title: ClassVar[str] = "SASRec"


@options
class GptOptions(TransformerOptions):
    """Options of GPT."""

    title: ClassVar[str] = "GPT"


class CausalBatch(NamedTuple):
    """Histories grouped by length, the item after each of their slots, and random items."""

    inputs: tuple[PaddedHistories, ...]
    targets: tuple[PaddedHistories, ...]
    negatives: Tensor


class CausalTask(SequentialTask):
    """The training task that predicts the item after each slot of a history."""

    def __init__(
        self,
        model: TransformerRecommender | TimiRec,
        options: SequentialOptions,
        context: FitContext,
        first: bool,
        loss: Loss = "full",
        negatives: int = 0,
    ) -> None:
        super().__init__(model, options, context, shortest=1 if first else 2)
        self.histories = self.histories.last(model.max_length + 1)
        self.first = first
        self.kind = loss
        self.negatives = negatives

    def batch(self, groups: list[Histories], rng: np.random.Generator) -> CausalBatch:
        """Makes inputs without the newest item, targets without the oldest if not predicted."""
        inputs = tuple(_without(group, newest=True).padded() for group in groups)
        targets = tuple(
            (group if self.first else _without(group, newest=False)).padded() for group in groups
        )
        count = (
            sum(int(part.mask.sum()) for part in targets)
            if self.kind == "binary"
            else self.negatives
        )
        return CausalBatch(
            inputs, targets, torch.from_numpy(rng.integers(self.module.n_items, size=count))
        )

    def loss(self, batch: CausalBatch) -> Tensor:
        """Computes the mean over all predicted slots."""
        q = torch.cat([self.module.queries_along(*part) for part in batch.inputs])
        targets = torch.cat([items[mask > 0] for items, mask in batch.targets])
        V = self.module.token.weight[: self.module.n_items]
        if self.kind == "binary":
            return binary_cross_entropy(q, V, targets, batch.negatives)
        if self.kind == "sampled":
            return sampled_cross_entropy(q, V, targets, batch.negatives)
        return full_cross_entropy(q, V, targets)


def train_sasrec(model: SasRec, options: SasRecOptions, context: FitContext) -> FitResult:
    """Trains SASRec with early stopping on the validation users."""
    task = CausalTask(
        model, options, context, first=False, loss=options.loss, negatives=options.negatives
    )
    return context.optimise(task, options.schedule())


def train_gpt(model: Gpt, options: GptOptions, context: FitContext) -> FitResult:
    """Trains GPT with early stopping on the validation users."""
    return context.optimise(CausalTask(model, options, context, first=True), options.schedule())


def _without(histories: Histories, newest: bool) -> Histories:
    ends = histories.offsets[1:] - 1 if newest else histories.offsets[:-1]
    kept = np.ones(len(histories.items), dtype=np.bool_)
    kept[ends[histories.lengths > 0]] = False
    return histories.keep(kept)

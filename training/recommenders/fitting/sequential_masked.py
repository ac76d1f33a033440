"""Trains BERT4Rec: items are masked at random, and predicted from all that are left."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.arrays import Bools
from training.fit import FitContext
from training.histories import Histories, PaddedHistories
from training.loop import FitResult
from training.options import InnerShare, Share, options
from training.recommenders.bert4rec import Bert4Rec
from training.recommenders.fitting.sequential import SequentialTask, TransformerOptions
from training.recommenders.fitting.sequential_losses import full_cross_entropy
from training.recommenders.transformer import newest_last


@options
class Bert4RecOptions(TransformerOptions):
    """Options of BERT4Rec."""

    mask_share: InnerShare = 0.4
    """Chance of an item to be masked while training."""
    newest_share: Share = 0.2
    """Share of the histories of which only the newest item is masked, as when recommending."""

    title: ClassVar[str] = "BERT4Rec"


class MaskedBatch(NamedTuple):
    """Histories grouped by length with masks in place, masked bool [batch, length]; the targets."""

    inputs: tuple[PaddedHistories, ...]
    masked: tuple[Tensor, ...]
    targets: Tensor


class MaskedTask(SequentialTask):
    """The cloze task."""

    options: Bert4RecOptions

    def __init__(self, model: Bert4Rec, options: Bert4RecOptions, context: FitContext) -> None:
        super().__init__(model, options, context, shortest=2)
        self.histories = self.histories.last(model.positions)

    def batch(self, groups: list[Histories], rng: np.random.Generator) -> MaskedBatch:
        """Draws masks anew; each history keeps at least one masked and one visible item."""
        inputs = []
        places = []
        targets = []
        for group in groups:
            masked = self._drawn(group, rng)
            hidden = np.where(masked, self.module.n_items, group.items)
            inputs.append(Histories(group.offsets, hidden).padded())
            places.append(Histories(group.offsets, masked.astype(np.int64)).padded().items > 0)
            targets.append(group.items[masked])
        return MaskedBatch(tuple(inputs), tuple(places), torch.from_numpy(np.concatenate(targets)))

    def loss(self, batch: MaskedBatch) -> Tensor:
        """Computes the mean over all masked places."""
        queries = []
        for (items, mask), masked in zip(batch.inputs, batch.masked, strict=True):
            width = items.shape[1]
            at, _ = newest_last(masked.to(torch.int64), mask, width, width)
            queries.append(self.module.queries(newest_last(items, mask, width, width))[at > 0])
        V = self.module.token.weight[: self.module.n_items]
        return full_cross_entropy(torch.cat(queries), V, batch.targets, self.module.b)

    def _drawn(self, group: Histories, rng: np.random.Generator) -> Bools:
        draws = rng.random(len(group.items))
        first = group.offsets[:-1]
        newest = group.offsets[1:] - 1
        lowest, highest = (
            np.repeat(part.reduceat(draws, first), group.lengths)
            for part in (np.minimum, np.maximum)
        )
        masked: Bools = ((draws < self.options.mask_share) | (draws == lowest)) & (draws != highest)
        alone = rng.random(group.size) < self.options.newest_share
        masked &= ~np.repeat(alone, group.lengths)
        masked[newest[alone]] = True
        return masked


def train_bert4rec(model: Bert4Rec, options: Bert4RecOptions, context: FitContext) -> FitResult:
    """Trains BERT4Rec with early stopping on the validation users."""
    return context.optimise(MaskedTask(model, options, context), options.schedule())

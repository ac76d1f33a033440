"""Trains matrix factorisation with BPR."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from torch import Tensor
from torch.nn.functional import embedding

from training.fit import FitContext
from training.loop import FitResult
from training.options import Count, Positive, options
from training.recommenders.factorisation import Factorisation
from training.recommenders.fitting.factors import Factors, FactorsOptions, FactorsTask
from training.recommenders.fitting.pairs import PairBatch, Pairs, bpr_loss


@options
class BprOptions(FactorsOptions):
    """Options of BPR."""

    title: ClassVar[str] = "BPR"

    batch_size: Count = 8192
    """User-item pairs a step."""
    negatives: Count = 4
    """Items a pair is compared with, drawn by popularity from those its user does not have."""
    fold_in_penalty: Positive = 0.03
    """On the squared length of a new user's factors."""


class BprTask(FactorsTask):
    """Bayesian personalised ranking: ranks a user's items before items that the user does not have.

    S. Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009; but
    negatives are drawn by popularity here, uniformly in the paper.
    """

    def __init__(self, module: Factors, options: BprOptions, context: FitContext) -> None:
        super().__init__(module, context)
        self.options = options
        self.pairs = Pairs(context.split.histories(context.split.train), context.split.n_items)

    def batches(self, rng: np.random.Generator) -> Iterator[PairBatch]:
        """Yields all pairs in random order."""
        return self.pairs.batches(rng, self.options.batch_size, self.options.negatives)

    def loss(self, batch: PairBatch) -> Tensor:
        """Computes the pairwise loss, and the penalty on the factors of the user and both items."""
        users = embedding(batch.users, self.module.users)
        items = embedding(batch.items, self.module.items)
        squares = users.square().sum(dim=-1) + 2 * items.square().sum(dim=-1)
        loss = bpr_loss(users, items, self.module.item_biases[batch.items], batch)
        return loss + self.options.penalty / 2 * squares.mean()


def build_bpr(options: BprOptions, n_items: int, _max_length: int) -> Factorisation:
    """Builds the model, its items still without vectors."""
    return Factorisation(n_items, options.d, options.fold_in())


def train_bpr(model: Factorisation, options: BprOptions, context: FitContext) -> FitResult:
    """Trains with early stopping on the validation users, who are folded in."""
    module = Factors(model, len(context.split.train))
    return context.optimise(BprTask(module, options, context), options.schedule())

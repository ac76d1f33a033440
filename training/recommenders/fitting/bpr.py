"""How matrix factorisation is trained with BPR."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn.functional import embedding

from training.loop import FitResult
from training.recommenders.factorisation import Factorisation
from training.recommenders.fitting.base import FitContext
from training.recommenders.fitting.factors import Factors, FactorsTask, check
from training.recommenders.fitting.pairs import PairBatch, Pairs, bpr_loss
from training.schedule import Schedule


@dataclass(frozen=True)
class BprOptions:
    """BPR's options."""

    d: int = 64
    """Number of factors."""
    lr: float = 1e-2
    """Adam's step size."""
    batch_size: int = 8192
    """User-item pairs a step."""
    negatives: int = 4
    """Items a pair is compared with, drawn by popularity from those its user does not have."""
    penalty: float = 2e-2
    """On the squared length of the factors of each compared user and item."""
    epochs: int = 100
    """Passes over the training users' pairs, at most."""
    validate_every: int = 5
    """Epochs between looks at the validation users' nDCG@20."""
    patience: int = 3
    """Looks without a new best after which training stops; the best state is kept."""
    fold_in_negatives: float = 4.0
    """Weight of the catalogue, against that of the history, when a new user is folded in."""
    fold_in_penalty: float = 0.03
    """On the squared length of a new user's factors."""
    fold_in_steps: int = 8
    """Conjugate-gradient steps that fold a new user in."""

    def __post_init__(self) -> None:
        self.schedule()

    def schedule(self) -> Schedule:
        """The loop's settings."""
        return check("BPR", self)


class BprTask(FactorsTask):
    """Bayesian personalised ranking: a user's items before those the user does not have.

    S. Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009.
    """

    def __init__(self, module: Factors, options: BprOptions, context: FitContext) -> None:
        super().__init__(module, context)
        self.options = options
        self.pairs = Pairs(context.split.histories(context.split.train), context.split.n_items)

    def batches(self, rng: np.random.Generator) -> Iterator[PairBatch]:
        """All pairs in random order."""
        return self.pairs.batches(rng, self.options.batch_size, self.options.negatives)

    def loss(self, batch: PairBatch) -> Tensor:
        """The pairwise loss, and the penalty on the factors of the user and of both items."""
        users = embedding(batch.users, self.module.users)
        items = embedding(batch.items, self.module.items)
        squares = users.square().sum(dim=-1) + 2 * items.square().sum(dim=-1)
        loss = bpr_loss(users, items, self.module.item_biases[batch.items], batch)
        return loss + self.options.penalty / 2 * squares.mean()


def build_bpr(options: BprOptions, n_items: int, max_length: int) -> Factorisation:
    """The model, its items still without vectors."""
    return Factorisation(
        n_items, options.d, options.fold_in_negatives, options.fold_in_penalty, options.fold_in_steps
    )


def fit_bpr(model: Factorisation, options: BprOptions, context: FitContext) -> FitResult:
    """Trains with early stopping on the validation users, who are folded in."""
    module = Factors(model, len(context.split.train))
    return context.fit(BprTask(module, options, context), options.schedule())

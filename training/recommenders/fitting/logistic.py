"""Trains matrix factorisation with a logistic loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding, softplus

from training.arrays import Ints
from training.fit import FitContext
from training.histories import Histories
from training.loop import FitResult
from training.options import Count, Positive, options
from training.recommenders.factorisation import Factorisation
from training.recommenders.fitting.factors import Factors, FactorsOptions, FactorsTask


@options
class LogisticOptions(FactorsOptions):
    """Options of logistic matrix factorisation."""

    title: ClassVar[str] = "logistic"

    batch_size: Count = 64
    """Users a step, with all their items."""
    negatives: Positive = 8.0
    """Weight of the items a user does not have, against that of those it has."""
    sample_size: Count = 1024
    """Items drawn uniformly a step, a sample of all that each of the step's users does not
    have."""
    fold_in_negatives: Positive = 8.0
    """Weight of the catalogue, against that of the history, when a new user is folded in."""


class UserBatch(NamedTuple):
    """A batch: users int64 [batch], and their pairs: rows of the batch and items, int64 [n_pairs].

    sample int64 [sample_size] are drawn items, and unknown float32 [batch, sample_size] is 1 where
    the user does not have that item.
    """

    users: Tensor
    rows: Tensor
    items: Tensor
    sample: Tensor
    unknown: Tensor


class LogisticTask(FactorsTask):
    """-log s(x_u . y_i + a_u + b_i) for each of a user's items, -log s(-(...)) for those drawn.

    C. C. Johnson, "Logistic Matrix Factorization for Implicit Feedback Data", 2014, with sampled
    negatives as in arXiv 2606.29341.
    """

    def __init__(self, module: Factors, options: LogisticOptions, context: FitContext) -> None:
        super().__init__(module, context)
        self.options = options
        self.histories = context.split.histories(context.split.train)

    def batches(self, rng: np.random.Generator) -> Iterator[UserBatch]:
        """Yields all users in random order, batch_size at a time, with a sample each."""
        order = rng.permutation(self.histories.size)
        n_items = self.module.model.n_items
        start = 0
        for part in self.histories.rows(order).batches(self.options.batch_size):
            users = torch.from_numpy(order[start : start + part.size])
            start += part.size
            yield _user_batch(
                users, part, rng.integers(0, n_items, self.options.sample_size), n_items
            )

    def loss(self, batch: UserBatch) -> Tensor:
        """Computes the mean over pairs of their loss and their user's mean loss on the sample."""
        module = self.module
        options = self.options
        users = embedding(batch.users, module.users)
        items = embedding(batch.items, module.items)
        sample = embedding(batch.sample, module.items)
        biases = module.user_biases[batch.users]
        scores = (
            (users[batch.rows] * items).sum(dim=-1)
            + biases[batch.rows]
            + module.item_biases[batch.items]
        )
        others = users @ sample.T + biases.unsqueeze(1) + module.item_biases[batch.sample]
        against = (softplus(others) * batch.unknown).sum(dim=1) / batch.unknown.sum(dim=1).clamp(
            min=1
        )
        loss = softplus(-scores).mean() + options.negatives * against[batch.rows].mean()
        squares = users.square().sum(dim=1)[batch.rows].mean() + items.square().sum(dim=1).mean()
        squares = squares + options.negatives * sample.square().sum(dim=1).mean()
        return loss + options.penalty / 2 * squares


def _user_batch(users: Tensor, histories: Histories, sample: Ints, n_items: int) -> UserBatch:
    known = histories.matrix(n_items)[:, sample].toarray()
    return UserBatch(
        users,
        torch.from_numpy(np.repeat(np.arange(histories.size), histories.lengths)),
        torch.from_numpy(histories.items),
        torch.from_numpy(sample),
        torch.from_numpy(1 - known),
    )


def build_logistic(options: LogisticOptions, n_items: int, _max_length: int) -> Factorisation:
    """Builds the model, its items still without vectors."""
    return Factorisation(n_items, options.d, options.fold_in())


def train_logistic(
    model: Factorisation, options: LogisticOptions, context: FitContext
) -> FitResult:
    """Trains with early stopping on the validation users, who are folded in."""
    module = Factors(model, len(context.split.train))
    return context.optimise(LogisticTask(module, options, context), options.schedule())

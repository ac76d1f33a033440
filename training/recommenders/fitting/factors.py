"""Options, module and task of trainings in which users have factors of their own."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from training.fit import FitContext
from training.options import Count, Positive, PositiveOrZero, options
from training.recommenders.factorisation import Factorisation, FoldIn
from training.schedule import Schedule

_START = 0.1
"""Standard deviation of the factors before training."""


@options
class FactorsOptions:
    """Options of every such training."""

    d: Count = 64
    """Number of factors."""
    lr: Positive = 1e-2
    """Adam's step size."""
    penalty: PositiveOrZero = 2e-2
    """On the squared length of the factors, for each time they take part in a comparison."""
    epochs: Count = 100
    """Passes over the training users, at most."""
    validate_every: Count = 5
    """Epochs between looks at the validation users' nDCG@20."""
    patience: Count = 3
    """Looks without a new best after which training stops; the best state is kept."""
    fold_in_negatives: Positive = 4.0
    """Weight of the catalogue, against that of the history, when a new user is folded in."""
    fold_in_penalty: Positive = 0.1
    """On the squared length of a new user's factors."""
    fold_in_steps: Count = 8
    """Conjugate-gradient steps that fold a new user in."""

    title: ClassVar[str]

    def schedule(self) -> Schedule:
        """Returns the loop's settings."""
        return Schedule(
            self.epochs, self.lr, validate_every=self.validate_every, patience=self.patience
        )

    def fold_in(self) -> FoldIn:
        """Returns the rule that folds new users in."""
        return FoldIn(self.fold_in_negatives, self.fold_in_penalty, self.fold_in_steps)


class Factors(nn.Module):
    """Factors of the training users and of the items, [n, d], with biases, and their model.

    The model knows items alone, so that it can be built without knowing how many users it was
    trained on.
    """

    def __init__(self, model: Factorisation, n_users: int) -> None:
        super().__init__()
        self.model = model
        self.users = nn.Parameter(torch.empty(n_users, model.d).normal_(std=_START))
        self.items = nn.Parameter(torch.empty(model.n_items, model.d).normal_(std=_START))
        self.user_biases = nn.Parameter(torch.zeros(n_users))
        self.item_biases = nn.Parameter(torch.zeros(model.n_items))

    def hand_over(self) -> None:
        """Gives the model what was learned so far."""
        self.model.set_items(self.items.detach(), self.item_biases.detach())


class FactorsTask:
    """The training task of factors; subclasses add the batches and the loss."""

    name = "recommender"

    def __init__(self, module: Factors, context: FitContext) -> None:
        self.module = module
        self.context = context
        self.memory: dict[str, Tensor] = {}

    def before_step(self) -> None:
        """Changes nothing."""

    def after_step(self) -> None:
        """Changes nothing."""

    def validate(self) -> float:
        """Returns nDCG@20 of the validation users, folded in."""
        self.module.hand_over()
        return self.context.validate(self.module.model)

"""What is trained where users have factors of their own, and the task that all such trainings share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from training.errors import ConfigError
from training.recommenders.factorisation import Factorisation
from training.recommenders.fitting.base import FitContext
from training.schedule import Schedule

_START = 0.1
"""Standard deviation of the factors before training."""


class Factors(nn.Module):
    """Factors of the training users and of the items, [n, d], with biases, beside the model they are for.

    The model knows items alone, so that it can be built without knowing how many users it was trained on.
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
    """The training of factors as the loop sees it, but for the batches and their loss."""

    name = "recommender"

    def __init__(self, module: Factors, context: FitContext) -> None:
        self.module, self.context = module, context
        self.memory: dict[str, Tensor] = {}

    def before_step(self) -> None:
        """Nothing."""

    def after_step(self) -> None:
        """Nothing."""

    def validate(self) -> float:
        """nDCG@20 of the validation users, folded in."""
        self.module.hand_over()
        return self.context.validate(self.module.model)


def check(name: str, options: Any) -> Schedule:
    """The loop's settings of options that have the fields which all factorisations share.

    Raises:
        ConfigError: if one of them has no meaning.
    """
    for field in ("d", "batch_size", "negatives", "fold_in_steps", "validate_every"):
        if getattr(options, field) < 1:
            raise ConfigError(f"{name}: {field} is {getattr(options, field)}, expected at least 1")
    if not options.penalty >= 0:
        raise ConfigError(f"{name}: penalty is {options.penalty}, expected at least 0")
    for field in ("fold_in_negatives", "fold_in_penalty"):
        if not getattr(options, field) > 0:
            raise ConfigError(f"{name}: {field} is {getattr(options, field)}, expected more than 0")
    return Schedule(
        options.epochs, options.lr, validate_every=options.validate_every, patience=options.patience
    )

"""How ELSA is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.errors import ConfigError
from training.loop import FitResult
from training.losses import normalised_squared_error
from training.recommenders.elsa import Elsa
from training.recommenders.fitting.base import FitContext
from training.schedule import Schedule


@dataclass(frozen=True)
class ElsaOptions:
    """ELSA's options."""

    d: int = 128
    """Width of the user embedding."""
    lr: float = 3e-3
    """Adam's step size."""
    batch_size: int = 128
    """Users a step; a step holds batch_size x n_items scores."""
    input_dropout: float = 0.7
    """Share of a history's items that is hidden from the input, drawn anew each time; all are the target."""
    epochs: int = 100
    """Passes over the training users, at most."""
    validate_every: int = 2
    """Epochs between looks at the validation users' nDCG@20."""
    patience: int = 10
    """Looks without a new best after which training stops; the best state is kept."""

    def __post_init__(self) -> None:
        if self.d < 1 or self.batch_size < 1 or self.validate_every < 1:
            raise ConfigError("ELSA: d, batch_size and validate_every must be at least 1")
        if not 0 <= self.input_dropout < 1:
            raise ConfigError(
                f"ELSA: input_dropout is {self.input_dropout}, expected a share from 0 to below 1"
            )
        self.schedule()

    def schedule(self) -> Schedule:
        """The loop's settings."""
        return Schedule(self.epochs, self.lr, validate_every=self.validate_every, patience=self.patience)


class ElsaTask:
    """ELSA's training as the loop sees it."""

    name = "recommender"

    def __init__(self, model: Elsa, options: ElsaOptions, context: FitContext) -> None:
        self.module, self.options, self.context = model, options, context
        self.histories = context.split.histories(context.split.train)
        self.memory: dict[str, Tensor] = {}

    def batches(self, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, x_input), both dense [batch, n_items], of batch_size users at a time."""
        kept = 1 - self.options.input_dropout
        for part in self.histories.rows(rng.permutation(self.histories.size)).batches(
            self.options.batch_size
        ):
            shown = part.thinned(rng, kept, kept)
            n_items = self.module.n_items
            yield (
                torch.from_numpy(part.matrix(n_items).toarray()),
                torch.from_numpy(shown.matrix(n_items).toarray()),
            )

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """MSE of the l2-normalised scores and histories."""
        x, x_input = batch
        return normalised_squared_error(self.module(x, x_input), x)

    def before_step(self) -> None:
        """Nothing."""

    def after_step(self) -> None:
        """Unit rows again."""
        self.module.normalise_rows()

    def validate(self) -> float:
        """nDCG@20 of the validation users."""
        return self.context.validate(self.module)


def fit_elsa(model: Elsa, options: ElsaOptions, context: FitContext) -> FitResult:
    """Trains ELSA with early stopping on the validation users."""
    return context.fit(ElsaTask(model, options, context), options.schedule())

"""How each recommender is trained: options, task, fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.checkpoint import Checkpoints
from training.errors import ConfigError
from training.loop import EpochReport, FitResult, Schedule, fit
from training.losses import normalised_squared_error
from training.recommenders.base import Recommender
from training.recommenders.elsa import Elsa
from training.recommenders.puresvd import PureSvd, singular_vectors
from training.splits import Split


class FitContext(NamedTuple):
    """What fitting needs beside the model and its options.

    validate gives a figure to be made larger, measured on the validation users: their mean nDCG@20.
    """

    split: Split
    max_length: int
    seed: int
    checkpoints: Checkpoints
    validate: Callable[[Recommender], float]
    report: Callable[[EpochReport], None] = lambda _: None


class RecommenderKind(NamedTuple):
    """A kind of recommender: its options, how they and the catalogue's size build it, how it is fitted."""

    options: type[Any]
    build: Callable[[Any, int], Recommender]
    fit: Callable[[Any, Any, FitContext], FitResult]


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


@dataclass(frozen=True)
class PureSvdOptions:
    """PureSVD's options."""

    d: int = 64
    """Number of singular vectors."""

    def __post_init__(self) -> None:
        if self.d < 1:
            raise ConfigError(f"PureSVD: d is {self.d}, expected at least 1")


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
    task = ElsaTask(model, options, context)
    return fit(task, options.schedule(), context.seed, context.checkpoints, context.report)


def fit_puresvd(model: PureSvd, options: PureSvdOptions, context: FitContext) -> FitResult:
    """Decomposes the training users' matrix; exact, so there is nothing to resume.

    Raises:
        ConfigError: if there are not more training users and items than singular vectors asked for.
    """
    X = context.split.input_matrix(context.split.train)
    if options.d >= min(X.shape):
        raise ConfigError(
            f"PureSVD: d is {options.d}, expected less than {min(X.shape)} (training users, items)"
        )
    model.V.copy_(singular_vectors(X, options.d))
    return FitResult(epochs=1, best_epoch=1, best=context.validate(model))

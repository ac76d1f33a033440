"""Options, batches and training task that the sequential models share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from training.errors import ConfigError
from training.fit import FitContext
from training.histories import Histories
from training.options import Count, Positive, ShareBelow1, options
from training.recommenders.transformer import Shape
from training.schedule import Schedule

_GROUPS = 8
"""Groups of a batch by length; more pad less and make smaller products."""


@options
class SequentialOptions:
    """Options of every sequential model."""

    d: Count = 64
    """Width of the items' embeddings and of the user's."""
    dropout: ShareBelow1 = 0.5
    """Rate of dropout while training."""
    lr: Positive = 3e-3
    """Adam's step size."""
    batch_size: Count = 256
    """Histories a step."""
    epochs: Count = 200
    """Passes over the training users, at most."""
    validate_every: Count = 1
    """Epochs between looks at the validation users' nDCG@20."""
    patience: Count = 5
    """Looks without a new best after which training stops; the best state is kept."""

    title: ClassVar[str]

    def schedule(self) -> Schedule:
        """Returns the loop's settings."""
        return Schedule(
            self.epochs, self.lr, validate_every=self.validate_every, patience=self.patience
        )


@options
class TransformerOptions(SequentialOptions):
    """Options of every sequential transformer."""

    blocks: Count = 2
    """Layers of attention and feed-forward."""
    heads: Count = 2
    """Heads of attention in each; d is a multiple of it."""
    hook_point: str = "output"
    """Place where z is read and edited: output, after all blocks, or block1, block2 ..., after that
    block."""

    def __post_init__(self) -> None:
        if self.d % self.heads:
            raise ConfigError(
                f"{self.title}: heads: expected a number that divides d, {self.d}, "
                f"found {self.heads}"
            )
        self.shape().blocks_before_hook()

    def shape(self) -> Shape:
        """Returns the shape that the model is built from."""
        return Shape(self.d, self.blocks, self.heads, self.dropout, self.hook_point)


class SequentialTask:
    """The training task of a sequential model; subclasses add the inputs and targets."""

    name = "recommender"

    def __init__(
        self, model: Any, options: SequentialOptions, context: FitContext, shortest: int
    ) -> None:
        self.module = model
        self.options = options
        self.context = context
        histories = context.split.histories(context.split.train)
        self.histories = histories.rows(np.flatnonzero(histories.lengths >= shortest))
        self.memory: dict[str, Tensor] = {}

    def batches(self, rng: np.random.Generator) -> Iterator[Any]:
        """Yields batch_size random histories a step, grouped by length to pad little."""
        for part in self.histories.rows(rng.permutation(self.histories.size)).batches(
            self.options.batch_size
        ):
            by_length = part.rows(np.argsort(part.lengths, kind="stable"))
            groups = by_length.batches(-(-self.options.batch_size // _GROUPS))
            yield self.batch(list(groups), rng)

    @abstractmethod
    def batch(self, groups: list[Histories], rng: np.random.Generator) -> Any:
        """Makes tuples of tensors for loss."""

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """Computes the scalar that training makes smaller."""

    def before_step(self) -> None:
        """Changes nothing."""

    def after_step(self) -> None:
        """Changes nothing."""

    def validate(self) -> float:
        """Returns nDCG@20 of the validation users."""
        return self.context.validate(self.module)

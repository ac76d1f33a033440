"""How an SAE is trained: options, task, fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.errors import ConfigError
from training.histories import Histories
from training.loop import FitResult
from training.losses import relative_squared_error
from training.recommenders.base import Recommender
from training.recommenders.fitting.base import FitContext
from training.saes.auxk import auxk_loss
from training.saes.base import SparseAutoencoder
from training.schedule import Schedule


class SaeKind(NamedTuple):
    """A kind of SAE: its options, and how it is built from them and the activation's width."""

    options: type[Any]
    build: Callable[[Any, int], SparseAutoencoder]


@dataclass(frozen=True)
class TopKOptions:
    """A TopK SAE's options."""

    k: int = 32
    """Neurons that stay active in each code."""
    expansion: int = 8
    """n_neurons / d."""
    lr: float = 3e-3
    """Adam's step size."""
    batch_size: int = 256
    """Histories a step."""
    epochs: int = 300
    """Passes over the training users; each draws new sub-histories."""
    decay_from: float = 0.7
    """From this share of the epochs on, the step size falls linearly to 0."""
    keep_low: float = 0.2
    """Least share of a history that a random sub-history keeps; 1 trains on whole histories only."""
    keep_high: float = 1.0
    """Largest such share; each draw's share is uniform between the two."""
    auxk_weight: float = 1 / 32
    """Weight of AuxK, which revives dead neurons; 0 leaves it out."""
    dead_after: float = 1.5
    """Passes over the training users after which a silent neuron counts as dead."""

    def __post_init__(self) -> None:
        if self.k < 1 or self.expansion < 1 or self.batch_size < 1:
            raise ConfigError(
                f"SAE: expected k, expansion and batch_size of at least 1, "
                f"found {self.k}, {self.expansion}, {self.batch_size}"
            )
        if not 0 < self.keep_low <= self.keep_high <= 1:
            raise ConfigError(
                f"SAE: expected 0 < keep_low <= keep_high <= 1, found {self.keep_low}, {self.keep_high}"
            )
        if self.auxk_weight < 0 or self.dead_after <= 0:
            raise ConfigError("SAE: auxk_weight must not be negative and dead_after must be positive")
        self.schedule()

    def n_neurons(self, d: int) -> int:
        """The width for an activation of width d.

        Raises:
            ConfigError: if k is more than that.
        """
        if self.k > d * self.expansion:
            raise ConfigError(f"SAE: k is {self.k}, expected at most n_neurons = {d} x {self.expansion}")
        return d * self.expansion

    def schedule(self) -> Schedule:
        """The loop's settings."""
        return Schedule(self.epochs, self.lr, decay_from=self.decay_from)


class SaeTask:
    """An SAE's training as the loop sees it."""

    name = "sae"

    def __init__(
        self, sae: SparseAutoencoder, options: TopKOptions, recommender: Recommender, context: FitContext
    ) -> None:
        self.module, self.options, self.recommender = sae, options, recommender
        self.max_length = context.max_length
        histories = context.split.histories(context.split.train)
        self.histories = histories.rows(np.flatnonzero(histories.lengths))
        self.silent = torch.zeros(sae.n_neurons, dtype=torch.int64)
        self.variance = torch.zeros(())
        self.memory = {"silent": self.silent, "variance": self.variance}

    def start(self) -> None:
        """b_dec at the mean of the normalised activations; the variance around it scales the loss."""
        y = self._normalised(self.recommender.embed(self.histories, self.max_length))
        with torch.no_grad():
            self.module.b_dec.copy_(y.mean(dim=0))
            self.variance.copy_((y - y.mean(dim=0)).square().mean().clamp_min(1e-12))

    def batches(self, rng: np.random.Generator) -> Iterator[Tensor]:
        """User embeddings [batch, d] of random sub-histories, encoded anew."""
        order = rng.permutation(self.histories.size)
        for part in self.histories.rows(order).batches(self.options.batch_size):
            yield self.recommender.embed(self._drawn(part, rng), self.max_length)

    def loss(self, batch: Tensor) -> Tensor:
        """Fraction of variance unexplained, and AuxK."""
        y = self._normalised(batch)
        activations = self.module.activations(batch)
        code = self.module.sparsity(activations)
        y_hat = self.module.decode(code)
        fired = (code > 0).any(dim=0)
        self.silent.add_(len(batch)).masked_fill_(fired, 0)
        loss = relative_squared_error(y_hat, y, self.variance)
        if self.options.auxk_weight:
            dead = self.silent >= self.options.dead_after * self.histories.size
            k_aux = max(self.module.d // 2, 1)
            loss = loss + self.options.auxk_weight * auxk_loss(
                self.module, activations, y - y_hat, dead, k_aux
            )
        return loss

    def before_step(self) -> None:
        """No gradient along the decoder rows."""
        self.module.drop_parallel_gradient()

    def after_step(self) -> None:
        """Unit decoder rows again."""
        self.module.normalise_rows()

    def validate(self) -> float:
        """Not used: an SAE is trained for a fixed number of epochs."""
        raise NotImplementedError

    def _drawn(self, part: Histories, rng: np.random.Generator) -> Histories:
        if self.options.keep_low == 1:
            return part
        return part.thinned(rng, self.options.keep_low, self.options.keep_high)

    def _normalised(self, z: Tensor) -> Tensor:
        return z / self.module.scale(z)


def fit_sae(
    sae: SparseAutoencoder, options: TopKOptions, recommender: Recommender, context: FitContext
) -> FitResult:
    """Trains the SAE on the training users' activations."""
    task = SaeTask(sae, options, recommender, context)
    task.start()
    return context.fit(task, options.schedule())

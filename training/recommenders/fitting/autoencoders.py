"""Trains autoencoders of whole histories, among them Mult-DAE and Mult-VAE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from training.fit import FitContext
from training.loop import FitResult
from training.losses import kl_from_standard_normal, multinomial_loss
from training.options import Count, CountOrZero, Positive, PositiveOrZero, ShareBelow1, options
from training.pooling import Bags
from training.recommender import Recommender
from training.recommenders.multvae import MultDae, MultVae
from training.schedule import Schedule


@options
class AutoencoderOptions:
    """Options of every autoencoder of histories."""

    d: Count = 128
    """Width of the user embedding."""
    lr: Positive = 1e-3
    """Adam's step size."""
    batch_size: Count = 128
    """Users a step."""
    input_dropout: ShareBelow1 = 0.5
    """Share of a history's items that is hidden from the input, drawn anew each time; all are the
    target."""
    epochs: Count = 200
    """Passes over the training users, at most."""
    validate_every: Count = 2
    """Epochs between looks at the validation users' nDCG@20."""
    patience: Count = 10
    """Looks without a new best after which training stops; the best state is kept."""

    title: ClassVar[str]

    def schedule(self) -> Schedule:
        """Returns the loop's settings."""
        return Schedule(
            self.epochs, self.lr, validate_every=self.validate_every, patience=self.patience
        )


@options
class MultDaeOptions(AutoencoderOptions):
    """Options of Mult-DAE."""

    title: ClassVar[str] = "Mult-DAE"


@options
class MultVaeOptions(AutoencoderOptions):
    """Options of Mult-VAE."""

    title: ClassVar[str] = "Mult-VAE"

    hidden: CountOrZero = 0
    """Width of the tanh layers on either side of the user embedding; 0 means 3 d."""
    kl_weight: PositiveOrZero = 0.2
    """Weight of the Kullback-Leibler divergence from a standard normal, once annealing is over."""
    anneal_epochs: CountOrZero = 50
    """Passes over the training users in which that weight rises linearly from 0."""
    noise: PositiveOrZero = 1.0
    """Standard deviation of epsilon in z = mean + sigma epsilon; 1 is the paper's, RecBole draws
    with 0.01."""

    def p(self) -> int:
        """Returns the width of the query."""
        return self.hidden or 3 * self.d


class HistoryBatch(NamedTuple):
    """Histories and the part of each that is shown."""

    whole: Bags
    shown: Bags


Model = TypeVar("Model", bound=Recommender)
Options = TypeVar("Options", bound=AutoencoderOptions)


class AutoencoderTask(Generic[Model, Options]):
    """The training task of an autoencoder; subclasses add the loss."""

    name = "recommender"

    def __init__(self, model: Model, options: Options, context: FitContext) -> None:
        self.module = model
        self.options = options
        self.context = context
        self.histories = context.split.histories(context.split.train)
        self.memory: dict[str, Tensor] = {}

    def batches(self, rng: np.random.Generator) -> Iterator[HistoryBatch]:
        """Yields histories of batch_size users, and random parts of them."""
        kept = 1 - self.options.input_dropout
        size = self.options.batch_size
        order = rng.permutation(self.histories.size)
        for start in range(0, len(order), size):
            part = self.histories.rows(order[start : start + size])
            yield HistoryBatch(Bags.of(part), Bags.of(part.thinned(rng, kept, kept)))

    def before_step(self) -> None:
        """Changes nothing."""

    def after_step(self) -> None:
        """Changes nothing."""

    def validate(self) -> float:
        """Returns nDCG@20 of the validation users."""
        return self.context.validate(self.module)


class MultDaeTask(AutoencoderTask[MultDae, MultDaeOptions]):
    """The training task of Mult-DAE."""

    def loss(self, batch: HistoryBatch) -> Tensor:
        """Computes the multinomial's negative log-likelihood of whole histories."""
        z = self.module.bottleneck(pooled(self.module.E, batch, self.options.input_dropout))
        return multinomial_loss(self.module.logits(z), batch.whole)


class MultVaeTask(AutoencoderTask[MultVae, MultVaeOptions]):
    """The training task of Mult-VAE."""

    def __init__(self, model: MultVae, options: MultVaeOptions, context: FitContext) -> None:
        super().__init__(model, options, context)
        self.steps = torch.zeros((), dtype=torch.int64)
        self.memory = {"steps": self.steps}

    def loss(self, batch: HistoryBatch) -> Tensor:
        """Computes the negative evidence lower bound; annealing weights its divergence."""
        self.steps += 1
        posterior = self.module.posterior(pooled(self.module.E, batch, self.options.input_dropout))
        divergence = kl_from_standard_normal(posterior.mean, posterior.log_variance)
        return (
            multinomial_loss(self.module.logits(posterior.sample(self.options.noise)), batch.whole)
            + self.kl_weight() * divergence
        )

    def kl_weight(self) -> float:
        """Returns the divergence's weight at the present step."""
        steps_an_epoch = -(-self.histories.size // self.options.batch_size)
        annealing = max(self.options.anneal_epochs * steps_an_epoch, 1)
        return self.options.kl_weight * min(1.0, int(self.steps) / annealing)


def pooled(E: Tensor, batch: HistoryBatch, input_dropout: float) -> Tensor:
    """Computes x/||x|| E with dropout on x/||x||, [batch, p]; the shown part is scaled up."""
    size = batch.whole.lengths.clamp_min(1).sqrt().unsqueeze(-1)
    return batch.shown.sum(E) / (size * (1 - input_dropout))


def train_multdae(model: MultDae, options: MultDaeOptions, context: FitContext) -> FitResult:
    """Trains Mult-DAE with early stopping on the validation users."""
    return context.optimise(MultDaeTask(model, options, context), options.schedule())


def train_multvae(model: MultVae, options: MultVaeOptions, context: FitContext) -> FitResult:
    """Trains Mult-VAE with early stopping on the validation users."""
    return context.optimise(MultVaeTask(model, options, context), options.schedule())

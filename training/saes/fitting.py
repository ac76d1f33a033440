"""Trains an SAE with any sparsity rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.fit import FitContext, SaeKind
from training.loop import FitResult
from training.recommender import Recommender
from training.saes.auxk import auxk_loss
from training.saes.base import SparseAutoencoder, SparseCode, Sparsity
from training.saes.losses import LOSSES
from training.saes.options import SaeOptions
from training.saes.subhistories import SubHistories

_CALIBRATION_ROWS = 4096
"""Codes from which a sparsity rule takes its start; more make it steadier and cost memory."""

_CAP_DRAWS = 3
"""Draws of sub-histories in which the largest code is looked for; more miss fewer large codes."""

_FINISH_SEED = 0x5AE
"""Separates the draws after training from those of the epochs."""


class SaeTask:
    """The training task of an SAE: its loss is the unexplained part and AuxK."""

    name = "sae"

    def __init__(
        self,
        sae: SparseAutoencoder,
        options: SaeOptions,
        recommender: Recommender,
        context: FitContext,
    ) -> None:
        self.module = sae
        self.options = options
        self.recommender = recommender
        self.max_length = context.max_length
        histories = context.split.histories(context.split.train)
        self.histories = histories.rows(np.flatnonzero(histories.lengths))
        self.sub_histories = SubHistories(
            self.histories, recommender.ordered, options.keep_low, options.keep_high, options.joined
        )
        self.error = LOSSES[options.loss]()
        self.baseline = 1.0
        self.silent = torch.zeros(sae.n_neurons, dtype=torch.int64, device=context.device)
        self.memory = {"silent": self.silent}

    @torch.no_grad()
    def start(self) -> None:
        """Sets b_dec to the mean activation, whose error scales the loss, and starts the rule."""
        y = self.module.normalised(self.recommender.embed(self.histories, self.max_length))
        self.module.b_dec.copy_(y.mean(dim=0))
        self.baseline = max(float(self.error(y.mean(dim=0).expand_as(y), y)), 1e-12)
        self.module.sparsity.start(self.module.pre_activations(y[:_CALIBRATION_ROWS]))

    def batches(self, rng: np.random.Generator) -> Iterator[Tensor]:
        """Yields user embeddings [batch, d] of random sub-histories, encoded anew."""
        return self.sub_histories.embedded(
            self.recommender, self.max_length, self.options.batch_size, rng
        )

    def loss(self, batch: Tensor) -> Tensor:
        """Computes the error, in units of the mean's error, and AuxK."""
        y = self.module.normalised(batch)
        pre = self.module.pre_activations(y)
        code = self.module.sparsity.training_code(pre)
        self._count_silence(len(batch), code)
        return self.loss_of(y, pre, code)

    def loss_of(self, y: Tensor, pre: Tensor, code: Tensor | SparseCode) -> Tensor:
        """Computes the loss of normalised y [batch, d], its pre-activations and its code."""
        y_hat = self.module.decode(code)
        return self.error(y_hat, y) / self.baseline + self.revival(y, y_hat, pre)

    def revival(self, y: Tensor, y_hat: Tensor, pre: Tensor) -> Tensor:
        """Computes AuxK times its weight."""
        weight = self.options.auxk_weight
        dead = self.silent >= self.options.dead_after * self.histories.size
        if not weight:
            return y.new_zeros(())
        residual = y - self.error.factor(y_hat, y) * y_hat
        return weight * auxk_loss(self.module, pre, residual, dead, max(self.module.d // 2, 1))

    def before_step(self) -> None:
        """Removes the gradient along the decoder rows."""
        self.module.drop_parallel_gradient()

    def after_step(self) -> None:
        """Puts the decoder rows back to unit norm."""
        self.module.normalise_rows()

    def validate(self) -> float:
        """Raises: an SAE is trained for a fixed number of epochs."""
        raise NotImplementedError

    @torch.no_grad()
    def finish(self, rng: np.random.Generator) -> None:
        """Gives the rule room for every code, and reconstructions their best common length.

        That is all of their length that a cosine loss leaves open, and what an L1 penalty took from
        them.
        """
        sae = self.module
        most = 0
        along = 0.0
        square = 0.0
        for z in self._examples(rng):
            y = sae.normalised(z)
            code = sae.sparsity.keep(sae.pre_activations(y))
            most = max(most, int((code > 0).sum(dim=-1).max()))
            y_hat = sae.decode(sae.sparsity(code))
            along = along + float((y_hat * y).sum())
            square = square + float(y_hat.square().sum())
        sae.sparsity.cap(most)
        if along > 0:
            sae.rescale(along / square)

    def _examples(self, rng: np.random.Generator) -> Iterator[Tensor]:
        """Yields embeddings of whole histories and of a few draws."""
        for part in self.histories.batches(1024):
            yield self.recommender.embed(part, self.max_length)
        for _ in range(_CAP_DRAWS):
            yield from self.sub_histories.embedded(self.recommender, self.max_length, 1024, rng)

    def _count_silence(self, size: int, code: Tensor | SparseCode) -> None:
        if isinstance(code, SparseCode):
            fired = torch.zeros_like(self.silent, dtype=torch.bool)
            fired[code.neurons[code.activations > 0]] = True
        else:
            fired = (code > 0).any(dim=0)
        self.silent.add_(size).masked_fill_(fired, 0)


def sae_kind(
    options: type[Any],
    sparsity: Callable[[Any, int], Sparsity],
    task: Callable[[SparseAutoencoder, Any, Recommender, FitContext], SaeTask],
) -> SaeKind[SparseAutoencoder]:
    """Makes a kind of SAE from its options, its sparsity rule and its training task.

    sparsity makes the rule from options and n_neurons.
    """

    def build(options: Any, d: int) -> SparseAutoencoder:
        n_neurons = options.n_neurons(d)
        rule = sparsity(options, n_neurons)
        return SparseAutoencoder(d, n_neurons, rule, options.normalisation())

    def fit(
        sae: SparseAutoencoder, options: Any, recommender: Recommender, context: FitContext
    ) -> FitResult:
        recommender.to(context.device)
        training = task(sae, options, recommender, context)
        training.start()
        result = context.optimise(training, options.schedule())
        training.finish(np.random.default_rng([context.seed, _FINISH_SEED]))
        recommender.cpu()
        return result

    return SaeKind(options, build, fit)

"""Trains ELSA."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from training.fit import FitContext
from training.loop import FitResult
from training.losses import elsa_loss, linear_elsa_loss
from training.options import Count, Positive, options
from training.recommenders.elsa import Elsa
from training.recommenders.fitting.autoencoders import (
    AutoencoderOptions,
    AutoencoderTask,
    HistoryBatch,
)

_LOSSES = {"exact": elsa_loss, "linear": linear_elsa_loss}


@options
class ElsaOptions(AutoencoderOptions):
    """Options of ELSA."""

    title: ClassVar[str] = "ELSA"

    d: Count = 256
    lr: Positive = 5e-3
    batch_size: Count = 512
    epochs: Count = 300
    loss: Literal["exact", "linear"] = "linear"
    """linear: without the ReLU on the scores, which then need not be computed. exact: the paper's,
    which needs a smaller d and on some data finds more; a step holds batch_size x n_items
    scores.
    """


class ElsaTask(AutoencoderTask[Elsa, ElsaOptions]):
    """The training task of ELSA."""

    def loss(self, batch: HistoryBatch) -> Tensor:
        """Computes the squared error of l2-normalised scores from l2-normalised histories."""
        A = self.module.A
        return _LOSSES[self.options.loss](batch.shown.sum(A), A, batch.whole, batch.shown)

    def before_step(self) -> None:
        """Removes the gradient along the rows."""
        self.module.drop_parallel_gradient()

    def after_step(self) -> None:
        """Puts the rows back to unit norm."""
        self.module.normalise_rows()


def train_elsa(model: Elsa, options: ElsaOptions, context: FitContext) -> FitResult:
    """Trains ELSA with early stopping on the validation users."""
    return context.optimise(ElsaTask(model, options, context), options.schedule())

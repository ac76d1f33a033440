"""Defines the options of every kind of SAE: those that all share, and those that each adds."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from training.errors import ConfigError
from training.options import (
    Count,
    CountOrZero,
    InnerShare,
    Positive,
    PositiveOrZero,
    Share,
    ShareBelow1,
    options,
)
from training.saes.normalisation import NORMALISATIONS, Normalisation
from training.schedule import Schedule

KeptShare = Annotated[float, Field(gt=0, le=1)]
"""A share above 0, up to 1."""


@options
class SaeOptions:
    """Options that all kinds share."""

    title: ClassVar[str] = "SAE"

    k: Count = 32
    """Neurons that are to be active in a code, on average over the training users."""
    expansion: Count = 4
    """n_neurons / d."""
    normalise: Literal["unit", "none", "standard"] = "unit"
    """Normalisation of an embedding before the SAE reads it, undone afterwards: unit (norm 1),
    standard (its entries to mean 0 and standard deviation 1) or none."""
    loss: Literal["l2", "cosine"] = "l2"
    """l2 (squared error) or cosine (direction alone; the length is fitted after training)."""
    lr: Positive = 3e-3
    """Adam's step size."""
    batch_size: Count = 256
    """Histories a step."""
    epochs: Count = 300
    """Passes over the training users; each draws new sub-histories."""
    decay_from: float = 0.7
    """From this share of the epochs on, the step size falls linearly to 0."""
    keep_low: KeptShare = 0.05
    """Least share of a history that a random sub-history keeps; 1 keeps whole histories."""
    keep_high: KeptShare = 1.0
    """Largest such share; each draw's share is uniform between the two."""
    joined: Share = 0.5
    """Share of the sub-histories that are joined to a random part of another user's history."""
    auxk_weight: PositiveOrZero = 1 / 8
    """Weight of AuxK, which revives dead neurons; 0 leaves it out."""
    dead_after: Positive = 0.5
    """Passes over the training users after which a silent neuron counts as dead."""

    def __post_init__(self) -> None:
        if self.keep_low > self.keep_high:
            raise ConfigError(
                f"SAE: keep_low: expected at most keep_high, {self.keep_high}, "
                f"found {self.keep_low}"
            )

    def n_neurons(self, d: int) -> int:
        """Returns the width for an activation of width d.

        Raises:
            ConfigError: if k is more than that.
        """
        if self.k > d * self.expansion:
            raise ConfigError(
                f"SAE: k: expected at most n_neurons = {d} x {self.expansion}, found {self.k}"
            )
        return d * self.expansion

    def schedule(self) -> Schedule:
        """Returns the loop's settings."""
        return Schedule(self.epochs, self.lr, decay_from=self.decay_from)

    def normalisation(self) -> Normalisation:
        """Makes the rule that normalise names."""
        return NORMALISATIONS[self.normalise]()


@options
class TopKOptions(SaeOptions):
    """Options of a TopK SAE."""

    k: Count = 32
    """Neurons that stay active in each code."""


@options
class PenalisedOptions(SaeOptions):
    """Options of the kinds that a penalty keeps sparse."""

    penalty: PositiveOrZero = 0.0
    """Fixed weight of the sparsity penalty; 0 adapts it until k neurons are active on average."""


@options
class ReluOptions(PenalisedOptions):
    """Options of the "basic" SAE: ReLU with an L1 penalty."""


@options
class JumpReluOptions(PenalisedOptions):
    """Options of a JumpReLU SAE."""

    penalty: Positive = 1.0
    """Weight of (l0 / k - 1)^2, which brings the mean number of active neurons to k."""
    bandwidth: Positive = 0.5
    """Width of the kernel that estimates the thresholds' gradient, in units of the threshold."""


@options
class BatchTopKOptions(SaeOptions):
    """Options of a BatchTopK SAE."""

    momentum: ShareBelow1 = 0.99
    """Share of the old threshold that stays at each step."""


@options
class MatryoshkaOptions(BatchTopKOptions):
    """Options of a Matryoshka SAE on BatchTopK."""

    prefixes: Annotated[int, Field(ge=1, le=16)] = 5
    """Nested widths whose reconstructions are trained together, each half of the next."""

    def prefix_sizes(self, n_neurons: int) -> tuple[int, ...]:
        """Returns the nested widths, the last of them n_neurons."""
        return tuple(sorted({max(n_neurons >> step, 1) for step in range(self.prefixes)}))


@options
class TiedOptions(PenalisedOptions):
    """Configures the tied ReLU Matryoshka of arXiv 2606.29341; all but penalty is its own."""

    prefixes: Annotated[int, Field(ge=1, le=64)] = 10
    """Nested widths, in equal steps."""
    reconstruction_weight: PositiveOrZero = 3.718
    """Weight of the errors of users and items, summed over the nested widths."""
    kl_weight: PositiveOrZero = 0.003
    """Weight of KL(kl_rate || mean activation of a neuron)."""
    kl_rate: InnerShare = 0.1
    """The mean activation that KL asks of each neuron."""
    score_weight: PositiveOrZero = 5.0
    """Weight of the score matrix's error, reached linearly after score_from."""
    score_from: CountOrZero = 10
    """Epochs before the score matrix counts; its weight grows for as many more."""

    def prefix_sizes(self, n_neurons: int) -> tuple[int, ...]:
        """Returns the nested widths, the last of them n_neurons."""
        return tuple(
            sorted(
                {max(n_neurons * step // self.prefixes, 1) for step in range(1, self.prefixes + 1)}
            )
        )

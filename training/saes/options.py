"""The options of every kind of SAE: what all have in common, and what each adds."""

from __future__ import annotations

from dataclasses import dataclass

from training.errors import ConfigError
from training.saes.losses import LOSSES
from training.saes.normalisation import NORMALISATIONS, Normalisation
from training.schedule import Schedule


@dataclass(frozen=True)
class SaeOptions:
    """What all kinds have in common."""

    k: int = 32
    """Neurons that are to be active in a code, on average over the training users."""
    expansion: int = 4
    """n_neurons / d."""
    normalise: str = "unit"
    """What is done to an embedding before the SAE reads it, and undone afterwards: unit (norm 1),
    standard (its entries to mean 0 and standard deviation 1) or none."""
    loss: str = "l2"
    """l2 (squared error) or cosine (direction alone; the length is fitted after training)."""
    lr: float = 3e-3
    """Adam's step size."""
    batch_size: int = 256
    """Histories a step."""
    epochs: int = 300
    """Passes over the training users; each draws new sub-histories."""
    decay_from: float = 0.7
    """From this share of the epochs on, the step size falls linearly to 0."""
    keep_low: float = 0.05
    """Least share of a history that a random sub-history keeps; 1 keeps whole histories."""
    keep_high: float = 1.0
    """Largest such share; each draw's share is uniform between the two."""
    joined: float = 0.5
    """Share of the sub-histories that are joined to a random part of another user's history."""
    auxk_weight: float = 1 / 8
    """Weight of AuxK, which revives dead neurons; 0 leaves it out."""
    dead_after: float = 0.5
    """Passes over the training users after which a silent neuron counts as dead."""

    def __post_init__(self) -> None:
        if self.k < 1 or self.expansion < 1 or self.batch_size < 1:
            raise ConfigError(
                f"SAE: expected k, expansion and batch_size of at least 1, "
                f"found {self.k}, {self.expansion}, {self.batch_size}"
            )
        for name, known in (("normalise", NORMALISATIONS), ("loss", LOSSES)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"SAE: {name} is {getattr(self, name)!r}, expected one of {', '.join(known)}"
                )
        if not 0 < self.keep_low <= self.keep_high <= 1:
            raise ConfigError(
                f"SAE: expected 0 < keep_low <= keep_high <= 1, found {self.keep_low}, {self.keep_high}"
            )
        if not 0 <= self.joined <= 1:
            raise ConfigError(f"SAE: joined is {self.joined}, expected a share from 0 to 1")
        if self.auxk_weight < 0 or self.dead_after <= 0:
            raise ConfigError(
                "SAE: auxk_weight must not be negative and dead_after must be positive"
            )
        self.schedule()

    def n_neurons(self, d: int) -> int:
        """The width for an activation of width d.

        Raises:
            ConfigError: if k is more than that.
        """
        if self.k > d * self.expansion:
            raise ConfigError(
                f"SAE: k is {self.k}, expected at most n_neurons = {d} x {self.expansion}"
            )
        return d * self.expansion

    def schedule(self) -> Schedule:
        """The loop's settings."""
        return Schedule(self.epochs, self.lr, decay_from=self.decay_from)

    def normalisation(self) -> Normalisation:
        """The rule that normalise names."""
        return NORMALISATIONS[self.normalise]()


@dataclass(frozen=True)
class TopKOptions(SaeOptions):
    """A TopK SAE's options."""

    k: int = 32
    """Neurons that stay active in each code."""


@dataclass(frozen=True)
class PenalisedOptions(SaeOptions):
    """Options of the kinds that a penalty keeps sparse."""

    penalty: float = 0.0
    """Fixed weight of the sparsity penalty; 0 adapts it until k neurons are active on average."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penalty < 0:
            raise ConfigError(f"SAE: penalty is {self.penalty}, expected 0 or more")


@dataclass(frozen=True)
class ReluOptions(PenalisedOptions):
    """Options of the "basic" SAE: ReLU with an L1 penalty."""


@dataclass(frozen=True)
class JumpReluOptions(PenalisedOptions):
    """A JumpReLU SAE's options."""

    penalty: float = 1.0
    """Weight of (l0 / k - 1)^2, which brings the mean number of active neurons to k."""
    bandwidth: float = 0.5
    """Width of the kernel that estimates the thresholds' gradient, in units of the threshold."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bandwidth <= 0 or self.penalty <= 0:
            raise ConfigError(
                f"JumpReLU: expected bandwidth and penalty above 0, found {self.bandwidth}, {self.penalty}"
            )


@dataclass(frozen=True)
class BatchTopKOptions(SaeOptions):
    """A BatchTopK SAE's options."""

    momentum: float = 0.99
    """Share of the old threshold that stays at each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ConfigError(
                f"BatchTopK: momentum is {self.momentum}, expected a share from 0 to below 1"
            )


@dataclass(frozen=True)
class MatryoshkaOptions(BatchTopKOptions):
    """Options of a Matryoshka SAE on BatchTopK."""

    prefixes: int = 5
    """Nested widths whose reconstructions are trained together, each half of the next."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.prefixes <= 16:
            raise ConfigError(f"Matryoshka: prefixes is {self.prefixes}, expected 1 to 16")

    def prefix_sizes(self, n_neurons: int) -> tuple[int, ...]:
        """The nested widths, the last of them n_neurons."""
        return tuple(sorted({max(n_neurons >> step, 1) for step in range(self.prefixes)}))


@dataclass(frozen=True)
class TiedOptions(PenalisedOptions):
    """Options of the tied ReLU Matryoshka of arXiv 2606.29341, with its constants but for the penalty's."""

    prefixes: int = 10
    """Nested widths, in equal steps."""
    reconstruction_weight: float = 3.718
    """Weight of the errors of users and items, summed over the nested widths."""
    kl_weight: float = 0.003
    """Weight of KL(kl_rate || mean activation of a neuron)."""
    kl_rate: float = 0.1
    """The mean activation that KL asks of each neuron."""
    score_weight: float = 5.0
    """Weight of the score matrix's error, reached linearly after score_from."""
    score_from: int = 10
    """Epochs before the score matrix counts; its weight grows for as many more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = (self.reconstruction_weight, self.kl_weight, self.score_weight)
        if min(weights) < 0 or self.score_from < 0 or not 0 < self.kl_rate < 1:
            raise ConfigError(
                "tied: expected weights and score_from of at least 0 and kl_rate between 0 and 1"
            )
        if not 1 <= self.prefixes <= 64:
            raise ConfigError(f"tied: prefixes is {self.prefixes}, expected 1 to 64")

    def prefix_sizes(self, n_neurons: int) -> tuple[int, ...]:
        """The nested widths, the last of them n_neurons."""
        return tuple(
            sorted(
                {max(n_neurons * step // self.prefixes, 1) for step in range(1, self.prefixes + 1)}
            )
        )

"""How long a model is trained, and how fast."""

from __future__ import annotations

from dataclasses import dataclass

from training.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """How long, how fast, and when to stop."""

    epochs: int
    """Passes over the training users, at most."""
    lr: float
    """Adam's step size."""
    decay_from: float = 1.0
    """From this share of the epochs on, the step size falls linearly to 0."""
    validate_every: int = 0
    """Epochs between looks at the validation users; 0 never looks, and the last state is the result."""
    patience: int = 1
    """Looks without a new best after which training stops."""
    weight_decay: float = 0.0
    """Adam's L2 penalty."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.lr > 0 or self.patience < 1:
            raise ConfigError(
                "expected epochs >= 1, lr > 0 and patience >= 1, "
                f"found {self.epochs}, {self.lr}, {self.patience}"
            )

    def lr_at(self, epoch: int) -> float:
        """The step size of an epoch, counted from 0."""
        progress = epoch / self.epochs
        if progress <= self.decay_from or self.decay_from >= 1:
            return self.lr
        return self.lr * (1 - progress) / (1 - self.decay_from)

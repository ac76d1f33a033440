"""Defines the length and the speed of a training."""

from __future__ import annotations

from training.options import Count, CountOrZero, Positive, options


@options
class Schedule:
    """The epochs, learning rate and early stopping of a training."""

    epochs: Count
    """Passes over the training users, at most."""
    lr: Positive
    """Adam's step size."""
    decay_from: float = 1.0
    """From this share of the epochs on, the step size falls linearly to 0."""
    validate_every: CountOrZero = 0
    """Epochs between looks at the validation users; 0 never looks, and the last state is the
    result."""
    patience: Count = 1
    """Looks without a new best after which training stops."""
    weight_decay: float = 0.0
    """Adam's L2 penalty."""

    def lr_at(self, epoch: int) -> float:
        """Returns the step size of an epoch, counted from 0."""
        progress = epoch / self.epochs
        if progress <= self.decay_from or self.decay_from >= 1:
            return self.lr
        return self.lr * (1 - progress) / (1 - self.decay_from)

"""How PureSVD is fitted."""

from __future__ import annotations

from dataclasses import dataclass

from training.errors import ConfigError
from training.fit import FitContext
from training.loop import FitResult
from training.recommenders.puresvd import PureSvd, singular_vectors


@dataclass(frozen=True)
class PureSvdOptions:
    """PureSVD's options."""

    d: int = 64
    """Number of singular vectors."""

    def __post_init__(self) -> None:
        if self.d < 1:
            raise ConfigError(f"PureSVD: d is {self.d}, expected at least 1")


def decompose_puresvd(model: PureSvd, options: PureSvdOptions, context: FitContext) -> FitResult:
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

"""Fits PureSVD."""

from __future__ import annotations

from typing import ClassVar

from training.errors import ConfigError
from training.fit import FitContext
from training.loop import FitResult
from training.options import Count, options
from training.recommenders.puresvd import PureSvd, singular_vectors


@options
class PureSvdOptions:
    """Options of PureSVD."""

    title: ClassVar[str] = "PureSVD"

    d: Count = 64
    """Number of singular vectors."""


def decompose_puresvd(model: PureSvd, options: PureSvdOptions, context: FitContext) -> FitResult:
    """Decomposes the training users' matrix; exact, so there is nothing to resume.

    Raises:
        ConfigError: if there are not more training users and items than singular vectors asked for.
    """
    X = context.split.input_matrix(context.split.train)
    if options.d >= min(X.shape):
        raise ConfigError(
            f"PureSVD: d: expected less than {min(X.shape)} (training users, items), "
            f"found {options.d}"
        )
    model.V.copy_(singular_vectors(X, options.d))
    return FitResult(epochs=1, best_epoch=1, best=context.validate(model))

"""Defines the losses of an SAE's reconstruction."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class ReconstructionLoss(Protocol):
    """A loss to minimise, and the best common length under it; y_hat and y [batch, d]."""

    def __call__(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """Computes the scalar."""

    def factor(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """Returns the factor for y_hat, [batch, 1]: the loss may leave its length open."""


class SquaredError:
    """The mean of (y_hat - y)^2."""

    def __call__(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """Computes the mean over batch and entries."""
        return (y_hat - y).square().mean()

    def factor(self, y_hat: Tensor, y: Tensor) -> Tensor:  # noqa: ARG002 - the interface's
        """Returns 1: the length is learned."""
        return torch.ones_like(y[:, :1])


class CosineDistance:
    """1 - cos(y_hat, y): the direction alone, as arXiv 2601.11182 trains its SAEs."""

    def __call__(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """Computes the mean over the batch."""
        return (1 - torch.cosine_similarity(y_hat, y, dim=-1)).mean()

    def factor(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """Computes the least-squares length of each row."""
        tiny = torch.finfo(y.dtype).tiny
        return (y_hat * y).sum(-1, keepdim=True) / y_hat.square().sum(-1, keepdim=True).clamp_min(
            tiny
        )


LOSSES: dict[str, type[ReconstructionLoss]] = {"l2": SquaredError, "cosine": CosineDistance}

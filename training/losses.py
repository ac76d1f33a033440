"""The losses that recommenders and autoencoders are trained with."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize


def normalised_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of ||p/||p|| - t/||t||||^2, [batch, n] each; ELSA's loss up to the factor n."""
    difference = normalize(prediction, dim=-1) - normalize(target, dim=-1)
    return difference.square().sum(dim=-1).mean()


def relative_squared_error(prediction: Tensor, target: Tensor, variance: Tensor) -> Tensor:
    """Mean squared error over a fixed scalar variance: 1 means "no better than the mean", [batch, d] each."""
    return (prediction - target).square().mean() / variance

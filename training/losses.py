"""The losses that recommenders and autoencoders are trained with."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import log_softmax, normalize

from training.pooling import Bags


def normalised_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of ||p/||p|| - t/||t||||^2, [batch, n] each; ELSA's loss up to the factor n."""
    difference = normalize(prediction, dim=-1) - normalize(target, dim=-1)
    return difference.square().sum(dim=-1).mean()


def relative_squared_error(prediction: Tensor, target: Tensor, variance: Tensor) -> Tensor:
    """Mean squared error over a fixed scalar variance: 1 means "no better than the mean", [batch, d] each."""
    return (prediction - target).square().mean() / variance


def multinomial_loss(logits: Tensor, histories: Bags) -> Tensor:
    """Mean over the batch of -sum over a history's items of log softmax(logits), [batch, n_items]."""
    return -log_softmax(logits, dim=-1)[histories.rows, histories.items].sum() / len(logits)


def kl_from_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Mean over the batch of KL(N(mean, exp(log_variance)) || N(0, 1)), [batch, d] each."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(dim=-1).mean()

"""Defines the losses that recommenders and autoencoders are trained with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import log_softmax

from training.pooling import Bags

_LEAST_NORM = 1e-12


def multinomial_loss(logits: Tensor, histories: Bags) -> Tensor:
    """Computes the mean of -sum over a history's items of log softmax(logits), [batch, n_items]."""
    return -log_softmax(logits, dim=-1)[histories.rows, histories.items].sum() / len(logits)


def kl_from_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Computes the mean of KL(N(mean, exp(log_variance)) || N(0, 1)), [batch, d] each."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(dim=-1).mean()


def elsa_loss(z: Tensor, A: Tensor, whole: Bags, shown: Bags) -> Tensor:
    """Computes the mean of ||s/||s|| - x/||x||||^2, s = ReLU(z A^T - x_shown), z = x_shown A.

    ELSA's loss up to the factor n_items; z [batch, d], A [n_items, d] of unit rows. It equals
    2 - 2 <s, x> / (||s|| ||x||), which reads x only where it is 1.
    """
    loss: Tensor = _RectifiedError.apply(z, A, whole, shown)  # type: ignore[no-untyped-call]
    return loss


def linear_elsa_loss(z: Tensor, A: Tensor, whole: Bags, shown: Bags) -> Tensor:
    """Computes the same without the ReLU, and without any [batch, n_items].

    <s, x> = z (x A)^T - |x_shown| and ||s||^2 = z (A^T A) z^T - 2 ||z||^2 + |x_shown|.
    """
    shown_count = shown.lengths.to(z.dtype)
    product = (z * whole.sum(A)).sum(dim=-1) - shown_count
    norm = ((z @ (A.T @ A) - 2 * z) * z).sum(dim=-1) + shown_count
    return _cosine_error(product, norm.clamp_min(_LEAST_NORM).sqrt(), whole).mean()


def _cosine_error(product: Tensor, norm: Tensor, whole: Bags) -> Tensor:
    return 2 - 2 * product / (norm * whole.lengths.to(norm.dtype).sqrt())


class _RectifiedError(torch.autograd.Function):
    """Computes elsa_loss with one [batch, n_items], which becomes its own gradient in place.

    d loss / d s = weight (s - ratio x) where s > 0, else 0, with ratio = ||s||^2 / <s, x> and
    weight = 2 <s, x> / (batch ||s||^3 ||x||), which is applied to narrower matrices than s.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, A: Tensor, whole: Bags, shown: Bags) -> Tensor:
        s = z @ A.T
        s[shown.rows, shown.items] -= 1
        s.relu_()
        rows = whole.rows
        items = whole.items
        norm = torch.linalg.vector_norm(s, dim=-1).clamp_min(_LEAST_NORM)
        held = s[rows, items]
        product = torch.zeros_like(norm).index_add_(0, rows, held)
        ratio = torch.where(product > 0, norm**2 / product, 0)
        s[rows, items] = held - (held > 0) * ratio[rows]
        weight = 2 * product / (len(z) * norm**3 * whole.lengths.to(norm.dtype).sqrt())
        weight = weight.unsqueeze(-1)
        ctx.save_for_backward(weight * (s @ A), s.T @ (weight * z))
        return _cosine_error(product, norm, whole).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        to_z, to_A = ctx.saved_tensors
        return gradient * to_z, gradient * to_A, None, None

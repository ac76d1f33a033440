"""Computes next-item losses at many positions at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

_ROWS = 128
"""Rows of scores held at a time; more take more memory, fewer make smaller products."""


class _FullCrossEntropy(torch.autograd.Function):
    """Computes the gradients along with the loss, a few rows at a time: no matrix of all scores."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, V: Tensor, b: Tensor | None, targets: Tensor) -> Tensor:
        dq = torch.empty_like(q)
        dV = torch.zeros_like(V)
        loss = q.new_zeros(())
        db = None if b is None else torch.zeros_like(b)
        for start in range(0, len(q), _ROWS):
            rows = slice(start, start + _ROWS)
            scores = q[rows] @ V.T if b is None else torch.addmm(b, q[rows], V.T)
            wanted = targets[rows].unsqueeze(1)
            highest = scores.amax(dim=1, keepdim=True)
            loss += (highest - scores.gather(1, wanted)).sum()
            weights = scores.sub_(highest).exp_()
            total = weights.sum(dim=1, keepdim=True)
            loss += total.log().sum()
            # The softmax is weights / total; the division is done on the narrow side. Less 1 at the
            # target.
            weights.scatter_add_(1, wanted, -total)
            dq[rows] = (weights @ V).div_(total)
            dV.addmm_(weights.T, q[rows] / total)
            if db is not None:
                db.addmv_(weights.T, 1 / total.squeeze(1))
        ctx.save_for_backward(dq, dV, db)
        return loss / len(q)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        dq, dV, db = ctx.saved_tensors
        scale = gradients[0] / len(dq)
        return dq * scale, dV * scale, None if db is None else db * scale, None


def full_cross_entropy(q: Tensor, V: Tensor, targets: Tensor, b: Tensor | None = None) -> Tensor:
    """Computes the mean of -log softmax(q V^T + b) at the targets.

    Q [m, p], V [n_items, p], targets [m].
    """
    loss: Tensor = _FullCrossEntropy.apply(q, V, b, targets)  # type: ignore[no-untyped-call]
    return loss


def sampled_cross_entropy(q: Tensor, V: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """Computes it over the target and the negatives [n].

    Negatives equal to the target do not count.
    """
    own = (q * V[targets]).sum(dim=1, keepdim=True)
    others = (q @ V[negatives].T).masked_fill(targets.unsqueeze(1) == negatives, -torch.inf)
    return (torch.logsumexp(torch.cat([own, others], dim=1), dim=1, keepdim=True) - own).mean()


def binary_cross_entropy(q: Tensor, V: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """Computes the mean of -log s(q.V_target) - log(1 - s(q.V_negative)) over the positions."""
    own = (q * V[targets]).sum(dim=1)
    other = (q * V[negatives]).sum(dim=1)
    return (softplus(-own) + softplus(other)).mean()

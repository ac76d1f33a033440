"""Computes a new user's factors from a history alone, by one small linear system in fixed steps."""

from __future__ import annotations

from torch import Tensor


def fold_in(
    vectors: Tensor, weights: Tensor, r: Tensor, A: Tensor, A_inverse: Tensor, steps: int
) -> Tensor:
    """Solves (A + sum_i weights_i v_i v_i^T) z = r: -> [batch, d].

    vectors v [batch, length, d]; weights [batch, length], 0 where there is no item; r [batch, d]; A
    [d, d] is what all users share. Conjugate gradients from z = 0, preconditioned with A^-1, for
    the given number of steps (M. R. Hestenes and E. Stiefel, 1952): always the same work, so the
    loop can be unrolled in a graph, and a row's result depends on nobody else in the batch.
    """
    smallest = 1e-30  # keeps a row that is solved already, as that of r = 0, from dividing by 0
    z = r.new_zeros(r.shape)
    residual = r
    direction = preconditioned = r @ A_inverse
    length = (residual * preconditioned).sum(-1, keepdim=True)
    for _ in range(steps):
        along = (vectors @ direction.unsqueeze(-1)).squeeze(-1) * weights
        image = direction @ A + (along.unsqueeze(-2) @ vectors).squeeze(-2)
        step = length / (direction * image).sum(-1, keepdim=True).clamp(min=smallest)
        z = z + step * direction
        residual = residual - step * image
        preconditioned = residual @ A_inverse
        before = length
        length = (residual * preconditioned).sum(-1, keepdim=True)
        direction = preconditioned + length / before.clamp(min=smallest) * direction
    return z

"""Defines SASRec, self-attention from the newest item back over the history."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.functional import relu

from training.recommenders.transformer import (
    PreNormBlock,
    Shape,
    TransformerRecommender,
    Window,
    causal,
    initialise,
    newest_last,
)


class SasRec(TransformerRecommender):
    """x = E[items] + P; per block x + A(N(x)), x + F(N(x)), causal; q = N(x) at the newest.

    score = q E^T. W.-C. Kang, J. McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018. F
    has ReLU and inner width d, as there; attention has an output matrix, which the paper's does
    without. Without a history, z is the state of an empty slot.
    """

    def __init__(self, n_items: int, max_length: int, shape: Shape) -> None:
        blocks = [PreNormBlock(shape, shape.d, relu) for _ in range(shape.blocks)]
        super().__init__(n_items, n_items, max_length, max_length, shape, blocks)
        self.norm = nn.LayerNorm(shape.d)
        initialise(self, linear=0.02)

    def window(self, items: Tensor, mask: Tensor, width: int) -> Window:
        """Returns the newest items alone."""
        return newest_last(items, mask, width, self.max_length)

    def allowed(self, filled: Tensor) -> Tensor:
        """Allows each slot the earlier ones."""
        return causal(filled)

    def embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Computes sqrt(d) E + P."""
        return math.sqrt(self.d) * tokens + positions

    def output(self, x: Tensor) -> Tensor:
        """Applies the last norm."""
        y: Tensor = self.norm(x)
        return y

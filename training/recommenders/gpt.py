"""Defines a GPT-style causal transformer over items."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from training.recommenders.transformer import (
    PreNormBlock,
    Shape,
    TransformerRecommender,
    Window,
    causal,
    initialise,
    newest_last,
)


class Gpt(TransformerRecommender):
    """x = E[start, items] + P; per block x + A(N(x)), x + F(N(x)), causal.

    q = N(x) at the newest item; score = q E^T. A. Radford et al., "Language Models are Unsupervised
    Multitask Learners", 2019 (GPT-2): F has GELU and inner width 4 d, the weights into the residual
    stream start smaller by sqrt(2 blocks). Unlike SASRec, whose F has ReLU and inner width d, it
    reads a start token before the oldest item, from which the first item is predicted: a user
    without history has a learned z.
    """

    def __init__(self, n_items: int, max_length: int, shape: Shape) -> None:
        blocks = [PreNormBlock(shape, 4 * shape.d, gelu) for _ in range(shape.blocks)]
        super().__init__(n_items, n_items + 1, max_length, max_length + 1, shape, blocks)
        self.norm = nn.LayerNorm(shape.d)
        initialise(self, linear=0.02)
        with torch.no_grad():
            for block in blocks:
                for into in (block.attention.output, block.feed_forward.second):
                    into.weight.mul_((2 * shape.blocks) ** -0.5)

    def window(self, items: Tensor, mask: Tensor, width: int) -> Window:
        """Returns the start token and the newest items."""
        tokens, filled = newest_last(items, mask, width, self.max_length)
        place = torch.arange(width, device=items.device)
        start = place == width - 1 - filled.sum(dim=1, keepdim=True)
        return Window(torch.where(start, self.n_items, tokens), filled | start)

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

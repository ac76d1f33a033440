"""Defines BERT4Rec, a bidirectional transformer that predicts masked items."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from training.recommender import ItemMatrix
from training.recommenders.transformer import (
    PostNormBlock,
    Shape,
    TransformerRecommender,
    Window,
    initialise,
    newest_last,
)


class Bert4Rec(TransformerRecommender):
    """x = N(E[items, mask] + P); per block N(x + A(x)), N(x + F(x)), all slots see all.

    z is the state at the mask. q = N(GELU(z W + c)); score = q E^T + b. F. Sun et al., "BERT4Rec:
    Sequential Recommendation with Bidirectional Encoder Representations from Transformer", CIKM
    2019; the norms of the input and of q are in its code only. F has GELU and inner width 4 d. The
    mask stands after the newest item, also in an empty history.
    """

    has_query = True

    def __init__(self, n_items: int, max_length: int, shape: Shape) -> None:
        blocks = [PostNormBlock(shape, 4 * shape.d, gelu) for _ in range(shape.blocks)]
        super().__init__(n_items, n_items + 1, max_length, max_length + 1, shape, blocks)
        self.input_norm = nn.LayerNorm(shape.d)
        self.query_norm = nn.LayerNorm(shape.d)
        self.dense = nn.Linear(shape.d, shape.d)
        self.b = nn.Parameter(torch.zeros(n_items))
        initialise(self)

    def window(self, items: Tensor, mask: Tensor, width: int) -> Window:
        """Returns the newest items and the mask."""
        tokens, filled = newest_last(items, mask, width - 1, self.max_length)
        return Window(pad(tokens, (0, 1), value=self.n_items), pad(filled, (0, 1), value=True))

    def allowed(self, filled: Tensor) -> Tensor:
        """Allows every filled slot."""
        return filled[:, None, None].expand(-1, 1, filled.shape[1], -1)

    def embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Computes N(E + P)."""
        y: Tensor = self.input_norm(tokens + positions)
        return y

    def output(self, x: Tensor) -> Tensor:
        """Returns the state unchanged."""
        return x

    def query(self, x: Tensor) -> Tensor:
        """Computes N(GELU(z W + c))."""
        q: Tensor = self.query_norm(gelu(self.dense(x)))
        return q

    def item_matrix(self) -> ItemMatrix:
        """Returns the items' embeddings and the output bias."""
        return ItemMatrix(self.token.weight.detach()[: self.n_items], self.b.detach())

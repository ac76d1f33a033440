"""What every recommender is to the rest: an encoder, a head and an item matrix.

z = encode(history) [d]      q = head(z) [p]      score_i = q . V_i + b_i
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from training.histories import Histories


class ItemMatrix(NamedTuple):
    """V float32 [n_items, p] and b float32 [n_items]."""

    V: Tensor
    b: Tensor


class Recommender(nn.Module, ABC):
    """A recommender seen as z = encode(history), q = head(z), score = V q + b.

    n_items: size of the catalogue; d: width of the activation z at the hook point; p: width of the query q;
    hook_point: name of the place where z is read; ordered: whether a history's order matters; has_head: False
    where head is the identity.
    """

    hook_point: ClassVar[str] = "user_embedding"
    ordered: ClassVar[bool] = False
    has_head: ClassVar[bool] = False

    def __init__(self, n_items: int, d: int, p: int) -> None:
        super().__init__()
        self.n_items, self.d, self.p = n_items, d, p

    @abstractmethod
    def encode(self, items: Tensor, mask: Tensor) -> Tensor:
        """Histories -> z [batch, d].

        items int64 [batch, length], padded at the end with 0; mask float32 [batch, length]; length may be 0.
        Traceable to ONNX.
        """

    def head(self, z: Tensor) -> Tensor:
        """[batch, d] -> [batch, p]; the identity unless has_head."""
        return z

    @abstractmethod
    def item_matrix(self) -> ItemMatrix:
        """V [n_items, p] and b [n_items]."""

    def scores(self, z: Tensor) -> Tensor:
        """[batch, d] -> [batch, n_items]."""
        V, b = self.item_matrix()
        return self.head(z) @ V.T + b

    def embed(self, histories: Histories, max_length: int, batch_size: int = 512) -> Tensor:
        """The user embedding of each history's newest max_length items: -> float32 [len(histories), d]."""
        with torch.no_grad():
            parts = [self.encode(*part.last(max_length).padded()) for part in histories.batches(batch_size)]
        return torch.cat(parts) if parts else torch.zeros(0, self.d)

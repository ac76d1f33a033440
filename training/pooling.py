"""Sums item rows over histories without a [batch, length, d] or a [batch, n_items] in between."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding, embedding_bag

from training.histories import Histories


class Bags(NamedTuple):
    """Ragged histories for torch: items int64 [n_events], and starts int64 [batch] of the rows."""

    items: Tensor
    starts: Tensor

    @classmethod
    def of(cls, histories: Histories) -> Bags:
        """Returns the rows of the histories."""
        return cls(torch.from_numpy(histories.items), torch.from_numpy(histories.offsets[:-1]))

    @property
    def lengths(self) -> Tensor:
        """Returns the number of items per row, int64 [batch]."""
        return torch.diff(self.starts, append=self.starts.new_tensor([len(self.items)]))

    @property
    def rows(self) -> Tensor:
        """Returns the row of each item, int64 [n_events]."""
        return torch.repeat_interleave(self.lengths, output_size=len(self.items))

    def sum(self, W: Tensor) -> Tensor:
        """Sums W's rows over each row's items: W [n_items, d] -> [batch, d]."""
        return embedding_bag(self.items, W, self.starts, mode="sum")


def masked_sum(W: Tensor, items: Tensor, mask: Tensor) -> Tensor:
    """Sums W's rows over padded histories.

    W [n_items, d], items, mask [batch, length] -> [batch, d].
    """
    if torch.compiler.is_exporting():  # ONNX has no bags
        return (embedding(items, W) * mask.unsqueeze(-1)).sum(dim=1)
    batch, length = items.shape
    starts = length * torch.arange(batch, device=items.device)
    return embedding_bag(items.flatten(), W, starts, per_sample_weights=mask.flatten(), mode="sum")

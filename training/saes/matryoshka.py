"""Trains a Matryoshka SAE: each prefix of the neurons reconstructs by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from training.saes.base import SparseAutoencoder, SparseCode
from training.saes.fitting import SaeTask
from training.saes.options import MatryoshkaOptions


class MatryoshkaTask(SaeTask):
    """The mean of the nested prefixes' errors, and AuxK (B. Bussmann et al., arXiv 2503.17547)."""

    options: MatryoshkaOptions

    def loss_of(self, y: Tensor, pre: Tensor, code: Tensor | SparseCode) -> Tensor:
        """Computes the loss of normalised y [batch, d] and its code [batch, n_neurons]."""
        sizes = self.options.prefix_sizes(self.module.n_neurons)
        y_hats = list(nested(self.module, cast(Tensor, code), sizes))
        errors = torch.stack([self.error(y_hat, y) for y_hat in y_hats])
        return errors.mean() / self.baseline + self.revival(y, y_hats[-1], pre)


def nested(sae: SparseAutoencoder, code: Tensor, sizes: Sequence[int]) -> Iterator[Tensor]:
    """Decodes a code [batch, n_neurons] by its first neurons alone.

    Yields D [batch, d] of each width.
    """
    y_hat = sae.b_dec.expand(len(code), -1)
    start = 0
    for stop in sizes:
        y_hat = y_hat + code[:, start:stop] @ sae.W_dec[start:stop]
        start = stop
        yield y_hat

"""Defines the interface of recommenders: an encoder, a head and an item matrix.

z = encode(history) [d]      q = head(z [, context]) [p]      score_i = q . V_i + b_i
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


class Activation(NamedTuple):
    """The place where a model is read and edited: z [batch, d], context [batch, context_size].

    The context holds all that the head reads besides z.
    """

    z: Tensor
    context: Tensor


class Recommender(nn.Module, ABC):
    """A recommender seen as z = encode(history), q = head(z, context), score = V q + b.

    n_items is the size of the catalogue, d the width of the activation z at the hook point, p the
    width of the query q, hook_point the name of the place where z is read. ordered: a history's
    order matters. has_head is False where head is the identity. context_size is the width of the
    head's input besides z, 0 for most; max_length the largest number of a history's items that can
    be read, None for any number.
    """

    ordered: ClassVar[bool] = False
    hook_point: str = "user_embedding"
    has_head: bool = False
    context_size: int = 0
    max_length: int | None = None

    def __init__(self, n_items: int, d: int, p: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.d = d
        self.p = p

    @abstractmethod
    def encode(self, items: Tensor, mask: Tensor) -> Tensor:
        """Encodes histories: -> z [batch, d].

        items int64 [batch, length], oldest first, padded at the end with 0; mask float32 [batch,
        length]; length may be 0. Traceable to ONNX.
        """

    def activate(self, items: Tensor, mask: Tensor) -> Activation:
        """Encodes histories to z and the head's context.

        Models with a context override this. Traceable to ONNX.
        """
        z = self.encode(items, mask)
        return Activation(z, z[:, :0])

    def head(self, z: Tensor, context: Tensor | None = None) -> Tensor:  # noqa: ARG002 - the interface\'s
        """Maps [batch, d] and, where context_size > 0, [batch, context_size] -> [batch, p].

        The identity unless has_head. Traceable to ONNX.
        """
        return z

    @abstractmethod
    def item_matrix(self) -> ItemMatrix:
        """Returns V [n_items, p] and b [n_items]."""

    def scores(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Scores all items: [batch, d] (and the context) -> [batch, n_items]."""
        V, b = self.item_matrix()
        return self.head(z, context) @ V.T + b

    @torch.no_grad()
    def activations(
        self, histories: Histories, max_length: int, batch_size: int = 512
    ) -> Activation:
        """Activates each history's newest max_length items, on the CPU, without dropout.

        [n, ...].
        """
        training = self.training
        device = _device(self)
        self.eval()
        parts = []
        for part in histories.batches(batch_size):
            items, mask = part.last(max_length).padded()
            z, context = self.activate(items.to(device), mask.to(device))
            parts.append((z.cpu(), context.cpu()))
        self.train(training)
        if not parts:
            return Activation(torch.zeros(0, self.d), torch.zeros(0, self.context_size))
        return Activation(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def embed(self, histories: Histories, max_length: int, batch_size: int = 512) -> Tensor:
        """Returns the user embedding z of each history: float32 [len(histories), d], on the CPU."""
        return self.activations(histories, max_length, batch_size).z


def _device(module: nn.Module) -> torch.device:
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")

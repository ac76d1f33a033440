"""Defines the parts of transformers: windows whose last slot is read, blocks, and hooks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, pad, scaled_dot_product_attention

from training.errors import ConfigError
from training.recommender import Activation, ItemMatrix, Recommender


class Window(NamedTuple):
    """Histories at the end of a window: tokens int64 and filled bool, both [batch, width].

    A token is an item index or, from n_items on, one of the model's own.
    """

    tokens: Tensor
    filled: Tensor


class Shape(NamedTuple):
    """A transformer's width d, blocks, heads in each, dropout rate, and hook point of z."""

    d: int
    blocks: int
    heads: int
    dropout: float
    hook_point: str

    def blocks_before_hook(self) -> int:
        """Returns the number of blocks before the hook point.

        Raises:
            ConfigError: if there is no such hook point.
        """
        names = {f"block{number}": number for number in range(1, self.blocks + 1)} | {
            "output": self.blocks
        }
        if self.hook_point not in names:
            raise ConfigError(
                f"hook_point: expected one of {', '.join(names)}, found {self.hook_point!r}"
            )
        return names[self.hook_point]


class Attention(nn.Module):
    """Multi-head attention: softmax(Q K^T / sqrt(d / heads)) V W_o over the allowed keys."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.dropout = shape.dropout
        self.query = nn.Linear(shape.d, shape.d)
        self.key_value = nn.Linear(shape.d, 2 * shape.d)
        self.output = nn.Linear(shape.d, shape.d)

    def forward(self, at: Tensor, y: Tensor, allowed: Tensor) -> Tensor:
        """Lets at [batch, m, d] attend to y [batch, width, d] if allowed [batch, 1, m, width]."""
        # A strided slice would be rounded differently where the weights ask for gradients.
        query, (key, value) = self.query(at.contiguous()), self.key_value(y).chunk(2, dim=-1)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)
        )
        rate = self.dropout if self.training else 0.0
        seen = scaled_dot_product_attention(query, key, value, allowed, rate)
        mixed: Tensor = self.output(seen.transpose(1, 2).flatten(2))
        return mixed


class FeedForward(nn.Module):
    """activation(x W_1 + b_1) W_2 + b_2, of the given inner width."""

    def __init__(self, d: int, inner: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.first = nn.Linear(d, inner)
        self.second = nn.Linear(inner, d)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., d] -> [..., d]."""
        y: Tensor = self.second(self.activation(self.first(x)))
        return y


class Block(nn.Module):
    """One layer: attention A, feed-forward F, two layer norms N, dropout on what A and F give."""

    def __init__(self, shape: Shape, inner: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rate = shape.dropout
        self.attention = Attention(shape)
        self.feed_forward = FeedForward(shape.d, inner, activation)
        self.norm_1 = nn.LayerNorm(shape.d)
        self.norm_2 = nn.LayerNorm(shape.d)

    @abstractmethod
    def forward(self, x: Tensor, allowed: Tensor, last: bool = False) -> Tensor:
        """Maps x [batch, width, d] and allowed keys, bool [batch, 1, width, width] -> the next x.

        last computes the last slot alone: [batch, 1, d].
        """


class PreNormBlock(Block):
    """x + A(N(x)), then x + F(N(x))."""

    def forward(self, x: Tensor, allowed: Tensor, last: bool = False) -> Tensor:
        """Computes the next x, as Block says."""
        y = self.norm_1(x)
        x, at, allowed = (x[:, -1:], y[:, -1:], allowed[:, :, -1:]) if last else (x, y, allowed)
        x = x + dropout(self.attention(at, y, allowed), self.rate, self.training)
        return x + dropout(self.feed_forward(self.norm_2(x)), self.rate, self.training)


class PostNormBlock(Block):
    """N(x + A(x)), then N(x + F(x)): as in BERT."""

    def forward(self, x: Tensor, allowed: Tensor, last: bool = False) -> Tensor:
        """Computes the next x, as Block says."""
        at, allowed = (x[:, -1:], allowed[:, :, -1:]) if last else (x, allowed)
        x = self.norm_1(at + dropout(self.attention(at, x, allowed), self.rate, self.training))
        y: Tensor = self.norm_2(x + dropout(self.feed_forward(x), self.rate, self.training))
        return y


def newest_last(items: Tensor, mask: Tensor, width: int, at_most: int) -> Window:
    """Moves each history's newest at_most items to the end of a window of that width.

    items int64 and mask float32 [batch, length], padded at the end; the length may be 0.
    """
    lengths = mask.sum(dim=1, keepdim=True).to(torch.int64)
    index = lengths - width + torch.arange(width, device=items.device)
    filled = index >= (lengths - at_most).clamp_min(0)
    # One more column, so that a history of length 0 has a column to gather from.
    return Window(pad(items, (0, 1)).gather(1, index.clamp_min(0)) * filled, filled)


class TransformerRecommender(Recommender):
    """A transformer over a window of the newest items; z is the last slot's state at the hook.

    hook_point is "output", after all blocks and the last norm, or "block1" ... "blockN", the state
    after that block; what follows it is the head. Between two blocks the head needs the other
    slots, too: they are the context, [positions filled flags | positions x d states], flat.

    Position embeddings are counted from the end: the last slot always has the first one.
    """

    ordered = True
    has_query: ClassVar[bool] = False
    max_length: int

    def __init__(
        self,
        n_items: int,
        n_tokens: int,
        max_length: int,
        positions: int,
        shape: Shape,
        blocks: Sequence[Block],
    ) -> None:
        super().__init__(n_items, shape.d, p=shape.d)
        self.max_length = max_length
        self.positions = positions
        self.shape = shape
        self.token = nn.Embedding(n_tokens, shape.d)
        self.position = nn.Embedding(positions, shape.d)
        self.blocks = nn.ModuleList(blocks)
        self.hook_point = shape.hook_point
        self.hook_after = shape.blocks_before_hook()
        self.has_head = self.has_query or shape.hook_point != "output"
        if self.hook_after < shape.blocks:
            self.context_size = positions * (1 + shape.d)

    @abstractmethod
    def window(self, items: Tensor, mask: Tensor, width: int) -> Window:
        """Puts histories, with the model's own tokens, at the end of a window of that width."""

    @abstractmethod
    def allowed(self, filled: Tensor) -> Tensor:
        """Maps filled bool [batch, width] to allowed keys, bool [batch, 1, width, width]."""

    @abstractmethod
    def embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Combines embeddings [batch, width, d], 0 in empty slots, and positions [width, d]."""

    @abstractmethod
    def output(self, x: Tensor) -> Tensor:
        """Maps the last block's state to the state at hook point "output"."""

    def query(self, x: Tensor) -> Tensor:
        """Maps the state at hook point "output" to q; the identity unless has_query."""
        return x

    def queries(self, window: Window) -> Tensor:
        """Computes the q of every slot: [batch, width, d]."""
        x = self._run(self._embed(window), self.allowed(window.filled), 0, self.shape.blocks)
        return self.query(self.output(x))

    def queries_along(self, items: Tensor, mask: Tensor) -> Tensor:
        """Computes the q of every filled slot, history after history, oldest first: [slots, d]."""
        window = self.window(items, mask, items.shape[1] + 1)
        return self.queries(window)[window.filled]

    def encode(self, items: Tensor, mask: Tensor) -> Tensor:
        """Computes the last slot's state at the hook point."""
        return self.activate(items, mask).z

    def activate(self, items: Tensor, mask: Tensor) -> Activation:
        """Computes z, and the other slots' states where the head needs them."""
        window = self.window(
            items, mask, self.positions if self.context_size else items.shape[1] + 1
        )
        x = self._embed(window)
        allowed = self.allowed(window.filled)
        if self.context_size:
            x = self._run(x, allowed, 0, self.hook_after)
            return Activation(x[:, -1], torch.cat([window.filled.to(x.dtype), x.flatten(1)], dim=1))
        x = self._run(x, allowed, 0, self.shape.blocks, last=True)[:, -1]
        z = self.output(x) if self.hook_point == "output" else x
        return Activation(z, z[:, :0])

    def head(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Runs the blocks after the hook point, with z in the last slot, and the output."""
        if context is not None and self.context_size:
            allowed = self.allowed(context[:, : self.positions] > 0.5)
            x = context[:, self.positions :].reshape(-1, self.positions, self.d)
            x = torch.cat([x[:, :-1], z.unsqueeze(1)], dim=1)
            z = self._run(x, allowed, self.hook_after, self.shape.blocks, last=True)[:, -1]
        return self.query(z if self.hook_point == "output" else self.output(z))

    def item_matrix(self) -> ItemMatrix:
        """Returns V = the items' embeddings, no biases."""
        return ItemMatrix(self.token.weight.detach()[: self.n_items], torch.zeros(self.n_items))

    def _embed(self, window: Window) -> Tensor:
        width = window.tokens.shape[1]
        age = torch.arange(width, device=window.tokens.device).flip(0).clamp_max(self.positions - 1)
        tokens = self.token(window.tokens) * window.filled.unsqueeze(-1)
        return dropout(self.embedded(tokens, self.position(age)), self.shape.dropout, self.training)

    def _run(self, x: Tensor, allowed: Tensor, first: int, stop: int, last: bool = False) -> Tensor:
        """Runs blocks first to stop; last computes only the last slot in the last block."""
        for number in range(first, stop):
            x = self.blocks[number](x, allowed, last and number == stop - 1)
        return x


def causal(filled: Tensor) -> Tensor:
    """Allows each slot the filled ones up to itself, and always itself.

    [batch, 1, width, width].
    """
    width = filled.shape[1]
    ones = torch.ones(width, width, dtype=torch.bool, device=filled.device)
    return (filled[:, None, None] & ones.tril()) | torch.eye(
        width, dtype=torch.bool, device=filled.device
    )


def initialise(module: nn.Module, linear: float | None = None) -> None:
    """Draws embeddings with standard deviation 0.02, linear maps with linear, or inputs^(-1/2)."""
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=linear or part.in_features**-0.5)
            nn.init.zeros_(part.bias)

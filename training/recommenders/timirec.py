"""Defines TiMiRec: several interests of a user, mixed by a predictor that the target taught."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, pad, relu

from training.recommender import ItemMatrix, Recommender
from training.recommenders.transformer import PostNormBlock, Shape, initialise


class Interests(NamedTuple):
    """Interest vectors m [batch, width, K, d] and predicted logits p [batch, width, K]."""

    m: Tensor
    p: Tensor

    def mixed(self) -> Tensor:
        """Computes z = sum_k softmax(p)_k m_k: [batch, width, d]."""
        return (self.p.softmax(dim=-1).unsqueeze(-1) * self.m).sum(dim=-2)


class TimiRec(Recommender):
    """z = sum_k softmax(p)_k m_k; score = z E^T.

    h = T(E[items] + P), one transformer layer; m_k = sum_s a_sk h_s with a_.k the softmax over the
    history of W_2 tanh(W_1 h_s); p = W g + c, g the state of a GRU over embeddings of its own. C.
    Wang et al., "Target Interest Distillation for Multi-Interest Recommendation", CIKM 2022. P
    counts items back from the newest. T looks back only, so that one pass gives the m and p of
    every prefix; in the paper T sees the whole of each. Without a history z is 0.
    """

    ordered = True
    max_length: int

    def __init__(
        self, n_items: int, max_length: int, d: int, interests: int, attention: int, rate: float
    ) -> None:
        super().__init__(n_items, d, p=d)
        self.max_length = max_length
        self.rate = rate
        self.token = nn.Embedding(n_items, d)
        self.position = nn.Embedding(max_length, d)
        self.layer = PostNormBlock(Shape(d, 1, 1, rate, "output"), d, relu)
        self.W_1 = nn.Linear(d, attention)
        self.W_2 = nn.Linear(attention, interests)
        self.own_token = nn.Embedding(n_items, d)
        self.gru = nn.GRU(d, d, batch_first=True)
        self.W = nn.Linear(d, interests)
        initialise(self)

    def interests(self, items: Tensor, mask: Tensor) -> Interests:
        """Computes the interests after every prefix of the newest max_length items.

        Width is length + 1.
        """
        lengths = mask.sum(dim=1, keepdim=True).to(torch.int64)
        # One more slot, so that a history of length 0 has a slot to attend to.
        width = items.shape[1] + 1
        place = torch.arange(width, device=items.device)
        index = place + (lengths - self.max_length).clamp_min(0)
        tokens = pad(items, (0, 1)).gather(1, index.clamp_max(width - 1))
        filled = index < lengths
        age = (lengths - 1 - index).clamp(0, self.max_length - 1)
        x = dropout(self.token(tokens) + self.position(age), self.rate, self.training)
        back = place <= place.unsqueeze(1)
        h = self.layer(x * filled.unsqueeze(-1), back.expand(len(x), 1, width, width))
        a = self.W_2(self.W_1(h).tanh()).transpose(1, 2).unsqueeze(2).masked_fill(~back, -torch.inf)
        m = (a.softmax(dim=-1) @ h.unsqueeze(1)).transpose(1, 2)
        g, _ = self.gru(dropout(self.own_token(tokens), self.rate, self.training))
        return Interests(m, self.W(g))

    def encode(self, items: Tensor, mask: Tensor) -> Tensor:
        """Mixes the interests after the newest item."""
        z = self.interests(items, mask).mixed()
        length = mask.sum(dim=1).to(torch.int64).clamp_max(self.max_length)
        newest = (length - 1).clamp_min(0)[:, None, None].expand(-1, 1, self.d)
        return z.gather(1, newest).squeeze(1) * (length > 0).unsqueeze(-1)

    def item_matrix(self) -> ItemMatrix:
        """Returns V = the items' embeddings, no biases."""
        return ItemMatrix(self.token.weight.detach(), torch.zeros(self.n_items))

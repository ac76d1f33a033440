"""Defines Mult-DAE and Mult-VAE, autoencoders of histories as draws from one multinomial."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.init import xavier_normal_

from training.pooling import masked_sum
from training.recommender import ItemMatrix, Recommender


class MultDae(Recommender):
    """z = x/||x|| E + b_E, q = tanh(z), score = V q + b, and x ~ multinomial(|x|, softmax(score)).

    D. Liang et al., "Variational Autoencoders for Collaborative Filtering", WWW 2018, with one tanh
    layer, as they found best for it. It is read before the tanh, which is the head. E and V
    [n_items, d].
    """

    hook_point = "bottleneck"
    has_head = True

    def __init__(self, n_items: int, d: int, p: int | None = None) -> None:
        super().__init__(n_items, d, p or d)
        self.E = nn.Parameter(xavier_normal_(torch.empty(n_items, self.p)))
        self.b_E = nn.Parameter(torch.zeros(self.p))
        self.V = nn.Parameter(xavier_normal_(torch.empty(n_items, self.p)))
        self.b = nn.Parameter(torch.zeros(n_items))

    def encode(self, items: Tensor, mask: Tensor) -> Tensor:
        """Computes z of the whole history, without dropout."""
        size = mask.sum(dim=1, keepdim=True).clamp_min(1).sqrt()
        return self.bottleneck(masked_sum(self.E, items, mask) / size)

    def bottleneck(self, pooled: Tensor) -> Tensor:
        """Maps pooled = x/||x|| E [batch, p] -> z [batch, d]."""
        return pooled + self.b_E

    def head(self, z: Tensor, context: Tensor | None = None) -> Tensor:  # noqa: ARG002 - the interface\'s
        """Computes q = tanh(z)."""
        return torch.tanh(z)

    def item_matrix(self) -> ItemMatrix:
        """Returns V and b: the last layer."""
        return ItemMatrix(self.V.detach(), self.b.detach())

    def logits(self, z: Tensor) -> Tensor:
        """Computes the scores with their gradient: [batch, d] -> [batch, n_items]."""
        return linear(self.head(z), self.V, self.b)


class Posterior(NamedTuple):
    """The distribution of z, independent normals: mean and log_variance, both [batch, d]."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: float = 1.0) -> Tensor:
        """Draws mean + sigma epsilon; epsilon is normal with this standard deviation."""
        return self.mean + (0.5 * self.log_variance).exp() * noise * torch.randn_like(self.mean)


class MultVae(MultDae):
    """h = tanh(x/||x|| E + b_E), z ~ N(h W_m + b_m, exp(h W_v + b_v)), q = tanh(z W_q + b_q).

    score = V q + b, and x ~ multinomial(|x|, softmax(score)); D. Liang et al., as above, one tanh
    layer of width p on either side of z. It is read at the posterior's mean, used as z
    outside training; the decoder's tanh layer is the head. E and V [n_items, p].
    """

    hook_point = "posterior_mean"

    def __init__(self, n_items: int, d: int, p: int) -> None:
        super().__init__(n_items, d, p)
        self.to_mean = nn.Linear(p, d)
        self.to_log_variance = nn.Linear(p, d)
        self.to_query = nn.Linear(d, p)
        for layer in (self.to_mean, self.to_log_variance, self.to_query):
            xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def posterior(self, pooled: Tensor) -> Posterior:
        """Maps pooled = x/||x|| E [batch, p] -> the distribution of z."""
        h = torch.tanh(pooled + self.b_E)
        return Posterior(self.to_mean(h), self.to_log_variance(h))

    def bottleneck(self, pooled: Tensor) -> Tensor:
        """Maps pooled [batch, p] -> the posterior's mean [batch, d]."""
        return self.posterior(pooled).mean

    def head(self, z: Tensor, context: Tensor | None = None) -> Tensor:  # noqa: ARG002 - the interface\'s
        """Computes q = tanh(z W_q + b_q)."""
        return torch.tanh(self.to_query(z))

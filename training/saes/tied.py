"""Trains the tied ReLU Matryoshka of arXiv 2606.29341.

It is one dictionary for users and items, and for their scores.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from training.fit import FitContext
from training.histories import Histories
from training.recommender import Recommender
from training.saes.base import SparseAutoencoder, SparseCode
from training.saes.matryoshka import nested
from training.saes.options import TiedOptions
from training.saes.penalised import PenalisedTask


class TiedTask(PenalisedTask):
    """The paper's loss, with W_enc = W_dec^T; U and V are normalised vectors, m a nested prefix.

    reconstruction_weight sum_m [error(U_m, U) + error(V_m, V)] + penalty mean(s)
    + kl_weight KL(kl_rate || mean(s)) + score_weight error(U_n V_n^T, U V^T)

    Each error is over that of the mean; AuxK, which the paper does not have, is weighted like the
    errors. An item's vector is its row of the item matrix where the head is the identity, else the
    activation of the history that holds it alone. While training, the rows of W_dec have any norm;
    finish makes them unit and leaves all reconstructions as they were.
    """

    options: TiedOptions

    def __init__(
        self,
        sae: SparseAutoencoder,
        options: TiedOptions,
        recommender: Recommender,
        context: FitContext,
    ) -> None:
        super().__init__(sae, options, recommender, context)
        self.items = sae.normalised(_item_vectors(recommender, context.max_length)).to(
            context.device
        )
        mean = self.items.mean(dim=0).expand_as(self.items)
        self.item_baseline = max(float(self.error(mean, self.items)), 1e-12)
        self.sizes = options.prefix_sizes(sae.n_neurons)
        self.seen = torch.zeros((), dtype=torch.int64, device=context.device)
        self.memory["seen"] = self.seen

    def first_weight(self) -> float:
        """Returns a weight as strong, relative to the errors, as without prefixes and items."""
        options = self.options
        n_neurons = self.module.n_neurons
        errors = 2 * len(options.prefix_sizes(n_neurons))
        return super().first_weight() * options.reconstruction_weight * errors * n_neurons

    def loss_of(self, y: Tensor, pre: Tensor, code: Tensor | SparseCode) -> Tensor:
        """Computes the sum above for a batch of users and as many random items, and AuxK."""
        options = self.options
        sae = self.module
        items = self.items[torch.randint(len(self.items), (len(y),), device=y.device)]
        user_code = cast(Tensor, code)
        item_code = sae.sparsity.keep(sae.pre_activations(items))
        users_hat = list(nested(sae, user_code, self.sizes))
        items_hat = list(nested(sae, item_code, self.sizes))
        errors = torch.stack(
            [self.error(hat, y) / self.baseline for hat in users_hat]
            + [self.error(hat, items) / self.item_baseline for hat in items_hat]
        )
        scores = y @ items.T
        scores_hat = users_hat[-1] @ items_hat[-1].T
        score_error = (scores_hat - scores).square().mean() / scores.var().clamp_min(1e-12)
        codes = torch.cat([user_code, item_code])
        revival = self.revival(y, users_hat[-1], pre)
        loss = (
            options.reconstruction_weight * (errors.sum() + len(self.sizes) * revival)
            + self.weight.clone() * codes.mean()
            + options.kl_weight * _kl(options.kl_rate, codes.mean(dim=0))
            + self._score_weight() * score_error
        )
        self.seen.add_(len(y))
        if not options.penalty:
            self._adapt(code)
        return loss

    def before_step(self) -> None:
        """Adds the encoder's gradient to the decoder's."""
        sae = self.module
        if sae.W_enc.grad is not None and sae.W_dec.grad is not None:
            sae.W_dec.grad += sae.W_enc.grad.T
            sae.W_enc.grad = None

    @torch.no_grad()
    def after_step(self) -> None:
        """Copies the decoder to the encoder."""
        self.module.W_enc.copy_(self.module.W_dec.T)

    @torch.no_grad()
    def finish(self, rng: np.random.Generator) -> None:
        """Makes the rows unit, moves their norms into the code, then finishes as for all SAEs."""
        sae = self.module
        norms = torch.linalg.vector_norm(sae.W_dec, dim=-1)
        sae.W_enc.mul_(norms)
        sae.b_enc.mul_(norms)
        sae.normalise_rows()
        super().finish(rng)

    def _score_weight(self) -> float:
        epochs = float(self.seen) / self.histories.size
        ramp = max(self.options.score_from, 1)
        return self.options.score_weight * min(
            max((epochs - self.options.score_from) / ramp, 0.0), 1.0
        )


def _item_vectors(recommender: Recommender, max_length: int) -> Tensor:
    """Returns the items' vectors, [n_items, d]."""
    if recommender.has_head:
        return recommender.embed(Histories.single_items(recommender.n_items), max_length)
    return recommender.item_matrix().V.detach().cpu()


def _kl(rate: float, mean: Tensor) -> Tensor:
    """Computes the mean over the neurons of KL(Bernoulli(rate) || Bernoulli(mean [n_neurons]))."""
    mean = mean.clamp(1e-6, 1 - 1e-6)
    return (rate * (rate / mean).log() + (1 - rate) * ((1 - rate) / (1 - mean)).log()).mean()

"""ELSA and a TopK SAE trained from dense users x items batches, as arXiv 2601.11182 does it.

The same draws, objective and optimiser as ours: a batch becomes dense x [batch, n_items], scores
and their l2-normalised errors are held for every item, the SAE reads z = x A as a product, and
decodes dense codes.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, relu

from training.histories import Histories
from training.recommenders.fitting.elsa import ElsaTask
from training.saes.fitting import SaeTask


def dense(histories: Histories, n_items: int) -> Tensor:
    """Returns the rows of a batch as a dense matrix, float32 [batch, n_items]."""
    return torch.from_numpy(histories.matrix(n_items).toarray())


class DenseElsaTask(ElsaTask):
    """ELSA, written down as in the paper, and left to torch's gradients."""

    def batches(self, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor]]:  # type: ignore[override]
        """Yields (x, the part of x that the model sees), both [batch, n_items].

        Without input dropout they are the same.
        """
        kept = 1 - self.options.input_dropout
        order = rng.permutation(self.histories.size)
        for part in self.histories.rows(order).batches(self.options.batch_size):
            x = dense(part, self.module.n_items)
            yield x, dense(part.thinned(rng, kept, kept), self.module.n_items) if kept < 1 else x

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:  # type: ignore[override]
        """Computes the squared error of the l2-normalised scores and histories."""
        x, shown = batch
        A = normalize(self.module.A, dim=-1)
        scores = relu(shown @ A @ A.T - shown)
        return (normalize(scores, dim=-1) - normalize(x, dim=-1)).square().sum(dim=-1).mean()

    def before_step(self) -> None:
        """Does nothing: the gradient of normalised rows has no component along them."""


class DenseSaeTask(SaeTask):
    """The SAE, on activations made from dense batches, with dense codes."""

    def batches(self, rng: np.random.Generator) -> Iterator[Tensor]:
        """Yields user embeddings x A [batch, d] of random sub-histories."""
        V = self.recommender.item_matrix().V
        order = rng.permutation(self.histories.size)
        for start in range(0, len(order), self.options.batch_size):
            drawn = self.sub_histories.draw(order[start : start + self.options.batch_size], rng)
            yield dense(drawn.last(self.max_length), len(V)) @ V

    def loss(self, batch: Tensor) -> Tensor:
        """Computes the error, divided by that of the mean, and adds AuxK."""
        sae = self.module
        y = sae.normalised(batch)
        pre = (y - sae.b_dec) @ sae.W_enc + sae.b_enc
        kept = torch.topk(relu(pre), sae.k, dim=-1)
        code = torch.zeros_like(pre).scatter(-1, kept.indices, kept.values)
        self._count_silence(len(batch), code)
        y_hat = code @ sae.W_dec + sae.b_dec
        return self.error(y_hat, y) / self.baseline + self.revival(y, y_hat, pre)

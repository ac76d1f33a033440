"""Defines implicit ALS: factorisation of all user-item pairs, confident in observed ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from training.recommender import ItemMatrix, Recommender
from training.recommenders.foldin import fold_in


class Als(Recommender):
    """min over x, y of sum_ui c_ui (p_ui - x_u . y_i)^2 + penalty (sum_u |x_u|^2 + sum_i |y_i|^2).

    p_ui is 1 where u has item i, else 0, and c_ui = 1 + confidence p_ui. With Y [n_items, d] given,
    the best x_u is the solution of (Y^T Y + penalty I + confidence Y_u^T Y_u) x = (1 + confidence)
    Y_u^T 1, Y_u being the rows of u's items; z is that solution, for users of the training and for
    new ones alike, and score = Y z. Y. Hu, Y. Koren and C. Volinsky, "Collaborative Filtering for
    Implicit Feedback Datasets", ICDM 2008; conjugate gradients for it after G. Takacs, I. Pilaszy
    and D. Tikk, RecSys 2011.
    """

    def __init__(self, n_items: int, d: int, confidence: float, penalty: float, steps: int) -> None:
        super().__init__(n_items, d, p=d)
        self.confidence = confidence
        self.penalty = penalty
        self.steps = steps
        self.Y: Tensor
        self.A: Tensor
        self.A_inverse: Tensor
        self.register_buffer("Y", torch.zeros(n_items, d))
        self.register_buffer("A", torch.eye(d) * penalty)
        self.register_buffer("A_inverse", torch.eye(d) / penalty)

    def encode(self, items: Tensor, mask: Tensor) -> Tensor:
        """Solves the system above in a fixed number of conjugate-gradient steps.

        0 for no history.
        """
        Y_u = embedding(items, self.Y) * mask.unsqueeze(-1)
        r = (1 + self.confidence) * Y_u.sum(dim=1)
        return fold_in(Y_u, self.confidence * mask, r, self.A, self.A_inverse, self.steps)

    def item_matrix(self) -> ItemMatrix:
        """Returns Y, no biases."""
        return ItemMatrix(self.Y, self.Y.new_zeros(self.n_items))

    @torch.no_grad()
    def set_items(self, Y: Tensor) -> None:
        """Takes item factors [n_items, d], and what every user's system shares from them."""
        self.Y.copy_(Y)
        A = self.Y.double().T @ self.Y.double() + self.penalty * torch.eye(
            self.d, device=self.Y.device
        )
        self.A.copy_(A)
        self.A_inverse.copy_(torch.linalg.inv(A))

"""Defines JumpReLU: a learned threshold per neuron, and an L0 penalty (arXiv 2407.14435)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.saes.base import Uncounted


class JumpRelu(Uncounted):
    """s = a H(a - theta): keeps what is above its neuron's threshold theta [n_neurons].

    The step H has no gradient, so the thresholds learn from a straight-through estimate: a
    rectangular kernel K of width epsilon around theta (S. Rajamanoharan et al., "Jumping Ahead",
    arXiv 2407.14435). Here epsilon is bandwidth x theta, so that it suits activations of any size.
    """

    def __init__(self, n_neurons: int, k_mean: int, bandwidth: float) -> None:
        super().__init__(n_neurons)
        self.k_mean = k_mean
        self.bandwidth = bandwidth
        self.log_theta = nn.Parameter(torch.zeros(n_neurons))

    @torch.no_grad()
    def start(self, pre: Tensor) -> None:
        """Sets the thresholds to what keeps k_mean of each sample on average."""
        kept = torch.topk(pre.flatten(), self.k_mean * len(pre)).values
        self.log_theta.fill_(float(kept.min().clamp_min(1e-6).log()))

    def keep(self, pre: Tensor) -> Tensor:
        """Keeps activations above their neuron's threshold."""
        theta = self.log_theta.exp()
        kept = torch.where(pre > theta, pre, 0.0)
        if not self.training:
            return kept
        # Adds 0; its gradient is -(theta / epsilon) K((a - theta) / epsilon) in theta.
        step = self._step(pre, theta)
        return kept + theta.detach() * (step - step.detach())

    def penalty(self, pre: Tensor) -> Tensor:
        """Computes (l0 / k_mean - 1)^2, l0 the batch's mean.

        The gradient in theta is estimated, too.
        """
        theta = self.log_theta.exp()
        step = self._step(pre, theta)
        l0 = ((pre > theta) + step - step.detach()).sum(dim=-1).mean()
        return (l0 / self.k_mean - 1).square()

    def _step(self, pre: Tensor, theta: Tensor) -> Tensor:
        """Computes H(a - theta) as a ramp of width epsilon, whose slope is the kernel."""
        width = self.bandwidth * theta.detach()
        return ((pre.detach() - theta) / width + 0.5).clamp(0, 1)

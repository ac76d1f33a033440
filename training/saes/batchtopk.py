"""Defines BatchTopK, which keeps the k x batch largest activations of a batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import relu

from training.saes.base import Uncounted


class BatchTopK(Uncounted):
    """Keeps the k_mean x batch largest of a training batch; afterwards those above a threshold.

    The threshold is a running mean of the smallest kept of each batch (B. Bussmann et al.,
    "BatchTopK Sparse Autoencoders", arXiv 2412.06410); k_mean is how many a code keeps on average.
    """

    threshold: Tensor

    def __init__(self, n_neurons: int, k_mean: int, momentum: float) -> None:
        super().__init__(n_neurons)
        self.k_mean = k_mean
        self.momentum = momentum
        self.register_buffer("threshold", torch.zeros(()))

    def start(self, pre: Tensor) -> None:
        """Sets the threshold to what would keep k_mean of each sample on average."""
        self.threshold.copy_(self._smallest_kept(pre))

    def keep(self, pre: Tensor) -> Tensor:
        """Keeps, while training, the largest of the batch; else those above the threshold."""
        if not self.training:
            return torch.where(pre > self.threshold, pre, 0.0)
        smallest = self._smallest_kept(pre)
        self.threshold.lerp_(smallest, 1 - self.momentum)
        return relu(torch.where(pre >= smallest, pre, 0.0))

    def _smallest_kept(self, pre: Tensor) -> Tensor:
        values = pre.detach().flatten()
        count = self.k_mean * len(pre)
        if values.device.type != "cpu":
            return torch.topk(values, count, sorted=False).values.min().clamp_min(0)
        # numpy's vectorised partition takes a small part of the time of torch's topk on a CPU.
        return torch.as_tensor(np.partition(values.numpy(), -count)[-count]).clamp_min(0)

"""Probes: logistic regressions from codes to concepts, dense or on a few neurons each.

All concepts are fitted at once in torch: their loss is a sum, and the costly product of codes and
weights is one matrix product for all of them, where a library's one-concept solver would repeat it
for each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from training.arrays import Bools, Floats
from training.concepts.mapping.contrast import contrast_weights
from training.concepts.mapping.evidence import Evidence

PENALTY = 1e-3
"""Weight of half the squared weights against a concept's mean loss; codes' mean squared norm is
1."""
SPARSE_NEURONS = 10
"""Neurons of a sparse probe."""
_STEPS = 100
"""Iterations of L-BFGS, at most."""


def dense_probe(evidence: Evidence) -> Floats:
    """Fits one logistic regression for each concept over all neurons: [n_concepts, n_neurons]."""
    return fit_probes(evidence.members, evidence.codes, None)


def sparse_probe(evidence: Evidence) -> Floats:
    """Fits probes on the 10 neurons whose mean differs most with and without the concept.

    Source of the choice by largest mean difference: W. Gurnee et al., "Finding Neurons in a
    Haystack", arXiv 2305.01610.
    """
    return k_sparse_probe(evidence, SPARSE_NEURONS)


def k_sparse_probe(evidence: Evidence, k: int) -> Floats:
    """Fits probes on each concept's k neurons of largest mean difference, 0 on all others.

    Neurons are compared in units of their standard deviation, so that a change of a neuron's scale
    changes nothing.
    """
    codes = evidence.codes
    variance = (
        np.asarray(codes.multiply(codes).mean(axis=0))[0] - np.asarray(codes.mean(axis=0))[0] ** 2
    )
    difference = contrast_weights(evidence.members, codes)
    difference = np.abs(difference) / np.sqrt(np.maximum(variance, np.finfo(np.float32).tiny))
    kept = np.argsort(-difference, axis=1, kind="stable")[:, :k]
    allowed = np.zeros(difference.shape, dtype=bool)
    np.put_along_axis(allowed, kept, True, axis=1)
    return fit_probes(evidence.members, codes, allowed)


def fit_probes(members: csr_matrix, codes: csr_matrix, allowed: Bools | None) -> Floats:
    """Minimises mean cross-entropy + PENALTY/2 |w|^2 of every concept, by L-BFGS.

    members [n_concepts, n_items], codes [n_items, n_neurons], allowed [n_concepts, n_neurons] or
    None for all -> float32 [n_concepts, n_neurons], in units of the codes as they were given; 0 for
    concepts that all items or none carry.
    """
    n_concepts, n_items = members.shape
    if not n_items:
        return np.zeros((n_concepts, codes.shape[1]), dtype=np.float32)
    size = max(
        float(np.sqrt(codes.multiply(codes).sum() / n_items)), float(np.finfo(np.float32).tiny)
    )
    X = torch.from_numpy((codes / size).toarray().astype(np.float32))
    Y = torch.from_numpy(members.T.toarray().astype(np.float32))
    mask = torch.ones(1) if allowed is None else torch.from_numpy(allowed.T.astype(np.float32))
    fitted = fit_logistic(
        X, Y, PENALTY / 2, least_rate=1e-6, max_iter=_STEPS, history_size=10, mask=mask
    )
    weights = fitted.W.T.numpy() / size
    counts = np.diff(members.indptr)
    weights[(counts == 0) | (counts == n_items)] = 0.0
    return np.ascontiguousarray(weights, dtype=np.float32)


class Logistic(NamedTuple):
    """Logistic regressions of n columns on m features: W [m, n], bias [n]."""

    W: Tensor
    bias: Tensor


def fit_logistic(
    X: Tensor,
    Y: Tensor,
    penalty: float,
    *,
    least_rate: float,
    max_iter: int,
    history_size: int = 100,
    mask: Tensor | None = None,
) -> Logistic:
    """Minimises mean cross-entropy + penalty |w|^2 of every column of Y, by L-BFGS.

    Args:
        X: features [samples, m].
        Y: 0 or 1, [samples, n].
        penalty: of the squared weights.
        least_rate: distance of a column's mean from 0 and 1 at which its first bias is clamped.
        max_iter: iterations, at most.
        history_size: steps from which L-BFGS estimates the curvature.
        mask: [m, n], 0 for weights that stay 0; None for none.
    """
    if mask is None:
        mask = torch.ones(1)
    rate = Y.mean(dim=0).clamp(least_rate, 1 - least_rate)
    W = torch.zeros(X.shape[1], Y.shape[1], requires_grad=True)
    bias = torch.logit(rate).requires_grad_()
    solver = torch.optim.LBFGS(
        [W, bias], max_iter=max_iter, history_size=history_size, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        weights = W * mask
        logits = X @ weights + bias
        entropy = binary_cross_entropy_with_logits(logits, Y, reduction="sum") / len(X)
        value: Tensor = entropy + penalty * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    return Logistic((W * mask).detach(), bias.detach())

"""Measures how pure neurons are: how alike their items are, and how few concepts they cover."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from training.arrays import Doubles, Floats
from training.concepts.mapping.evidence import Evidence
from training.concepts.mapping.tfidf import tag_activations


class Purity(NamedTuple):
    """Two measures of every neuron, [n_neurons]; NaN where they are undefined."""

    monosemanticity: Doubles
    entropy: Doubles


def purity(evidence: Evidence, V: Floats) -> Purity:
    """Computes both measures; V float32 [n_items, p] holds the evidence's items as vectors."""
    return Purity(monosemanticity(evidence.codes, V), neuron_entropy(evidence))


def monosemanticity(codes: csr_matrix, V: Floats) -> Doubles:
    """Computes MS(n) = sum_{i!=j} a_i a_j cos(v_i, v_j) / sum_{i!=j} a_i a_j: [n_neurons].

    a is min-max scaled; codes [n_items, n_neurons], V [n_items, p]. The sums are |sum a_i v_i|^2 -
    sum a_i^2 and (sum a_i)^2 - sum a_i^2 for unit v_i, so no pair is visited. NaN for neurons that
    fewer than two items fire; between 0 and 1 where items are alike, about 0 where they are not.
    Source: arXiv 2606.29341.
    """
    codes = codes.astype(np.float64)
    items = V.astype(np.float64)
    norms = np.linalg.norm(items, axis=1, keepdims=True)
    unit = np.divide(items, norms, out=np.zeros(V.shape), where=norms > 0)
    present = (norms[:, 0] > 0).astype(np.float64)  # an item without a direction is like no other
    n_items = max(codes.shape[0], 1)
    lowest = (
        np.asarray(codes.min(axis=0).todense())[0] if codes.shape[0] else np.zeros(codes.shape[1])
    )
    # a_i = c_i - lowest (the division by the range cancels); expanded, so that sparse codes stay
    # sparse.
    total = np.asarray(codes.sum(axis=0))[0] - n_items * lowest
    shifted = codes.T @ unit - lowest[:, None] * unit.sum(axis=0)
    squares = _squares(codes, lowest, np.ones(codes.shape[0]))
    pairs = total**2 - squares
    alike = (shifted**2).sum(axis=1) - _squares(codes, lowest, present)
    enough = pairs > 1e-9 * np.maximum(total**2, 1e-30)
    scores: Doubles = np.divide(alike, pairs, out=np.full(len(pairs), np.nan), where=enough)
    return scores


def neuron_entropy(evidence: Evidence) -> Doubles:
    """Computes how each neuron's activation spreads over the concepts: [n_neurons].

    From 0 (one concept) to 1 (all alike): the entropy of A(t, n) / sum_t A(t, n) over
    ln(n_concepts), with A of arXiv 2601.11182.
    """
    return _entropy(np.abs(tag_activations(evidence.members, evidence.codes)).T)


def concept_entropy(evidence: Evidence) -> Doubles:
    """Computes how each concept spreads over the neurons, 0 (one) to 1 (alike): [n_concepts]."""
    return _entropy(np.abs(tag_activations(evidence.members, evidence.codes)))


def _squares(codes: csr_matrix, lowest: Doubles, counted: Doubles) -> Doubles:
    """Computes sum_i (c_i - lowest)^2 over the counted items: [n_neurons]."""
    plain = np.asarray(codes.T @ counted)
    squared = np.asarray(codes.multiply(codes).T @ counted)
    squares: Doubles = squared - 2 * lowest * plain + counted.sum() * lowest**2
    return squares


def _entropy(table: Doubles) -> Doubles:
    """Computes each row's entropy over ln(columns): amounts >= 0 [rows, columns] -> [rows].

    NaN for a row of zeros.
    """
    totals = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, totals, out=np.zeros_like(table), where=totals > 0)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    most = np.log(max(table.shape[1], 2))
    return np.where(totals[:, 0] > 0, -(shares * logs).sum(axis=1) / most, np.nan)

"""Maps attribute values to neurons by TF-IDF ("From Knots to Knobs", arXiv 2601.11182)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from training.arrays import Doubles, Floats
from training.concepts.mapping.evidence import Evidence


def tfidf(evidence: Evidence) -> Floats:
    """Scores neurons as terms, with concepts as documents: [n_concepts, n_neurons]."""
    return characterises(tag_activations(evidence.members, evidence.codes)).astype(np.float32)


def tfidf_unique(evidence: Evidence) -> Floats:
    """Scores concepts as terms, with neurons as documents: [n_concepts, n_neurons]."""
    return most_unique(tag_activations(evidence.members, evidence.codes)).astype(np.float32)


def tag_activations(members: csr_matrix, codes: csr_matrix) -> Doubles:
    """Computes A(t, n) = sum_i P(t, i) a(i, n), P(t, i) = count(t, i) / sum_i count(t, i).

    members [n_tags, n_items] and codes [n_items, n_neurons] of one-item histories -> [n_tags,
    n_neurons].
    """
    totals = np.maximum(np.asarray(members.sum(axis=1), dtype=np.float64).reshape(-1, 1), 1)
    return np.asarray((members @ codes).todense(), dtype=np.float64) / totals


def tf_idf(counts: Doubles) -> Doubles:
    """Multiplies row-normalised counts by ln((docs + 1) / (df + 1)) + 1: [n_documents, n_terms]."""
    totals = counts.sum(axis=1, keepdims=True)
    frequency = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    idf = np.log((len(counts) + 1) / ((counts > 0).sum(axis=0) + 1)) + 1
    result: Doubles = frequency * idf
    return result


def characterises(A: Doubles) -> Doubles:
    """Scores neurons as terms of tags: [n_tags, n_neurons]. The paper's choice for ELSA."""
    return tf_idf(A)


def most_unique(A: Doubles) -> Doubles:
    """Scores tags as terms of neurons: [n_tags, n_neurons]. The paper's choice for MultVAE."""
    return tf_idf(A.T).T


def top_neurons(table: NDArray[np.floating], count: int) -> list[list[int]]:
    """Returns each tag's neurons of positive score, best first, at most count."""
    order = np.argsort(-table, axis=1, kind="stable")[:, :count]
    return [
        [int(neuron) for neuron in row if table[tag, neuron] > 0] for tag, row in enumerate(order)
    ]

"""The mapping between attribute values and neurons by TF-IDF ("From Knots to Knobs", arXiv 2601.11182)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from training.concepts.mapping.evidence import Evidence, Floats

Figures = NDArray[np.float64]


def tfidf(evidence: Evidence) -> Floats:
    """Neurons as terms, concepts as documents: [n_concepts, n_neurons]."""
    return characterises(tag_activations(evidence.members, evidence.codes)).astype(np.float32)


def tfidf_unique(evidence: Evidence) -> Floats:
    """Concepts as terms, neurons as documents: [n_concepts, n_neurons]."""
    return most_unique(tag_activations(evidence.members, evidence.codes)).astype(np.float32)


def tag_activations(members: csr_matrix, codes: csr_matrix) -> Figures:
    """A(t, n) = sum_i P(t, i) a(i, n), with P(t, i) = count(t, i) / sum_i count(t, i).

    members [n_tags, n_items] and codes [n_items, n_neurons] of one-item histories -> [n_tags,
    n_neurons].
    """
    totals = np.maximum(np.asarray(members.sum(axis=1), dtype=np.float64).reshape(-1, 1), 1)
    return np.asarray((members @ codes).todense(), dtype=np.float64) / totals


def tf_idf(counts: Figures) -> Figures:
    """[n_documents, n_terms] -> row-normalised counts times ln((docs + 1) / (df + 1)) + 1."""
    totals = counts.sum(axis=1, keepdims=True)
    frequency = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    idf = np.log((len(counts) + 1) / ((counts > 0).sum(axis=0) + 1)) + 1
    result: Figures = frequency * idf
    return result


def characterises(A: Figures) -> Figures:
    """Neurons as terms, tags as documents: [n_tags, n_neurons]. The paper's choice for ELSA."""
    return tf_idf(A)


def most_unique(A: Figures) -> Figures:
    """Tags as terms, neurons as documents: [n_tags, n_neurons]. The paper's choice for MultVAE."""
    return tf_idf(A.T).T


def top_neurons(table: NDArray[np.floating], count: int) -> list[list[int]]:
    """Per tag, at most count neurons of positive score, best first."""
    order = np.argsort(-table, axis=1, kind="stable")[:, :count]
    return [
        [int(neuron) for neuron in row if table[tag, neuron] > 0] for tag, row in enumerate(order)
    ]

"""Contrast: a concept's direction in code space, over all neurons."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from training.arrays import Floats
from training.concepts.mapping.evidence import Evidence


def contrast(evidence: Evidence) -> Floats:
    """Returns the mean code with the concept minus that without: [n_concepts, n_neurons]."""
    return contrast_weights(evidence.members, evidence.codes)


def contrast_weights(members: csr_matrix, codes: csr_matrix) -> Floats:
    """Returns the mean code of the items with the concept minus that of all others.

    members [n_concepts, n_items] and codes [n_items, n_neurons] of one-item histories -> float32
    [n_concepts, n_neurons]; zeros where either side is empty.
    """
    counts = np.asarray(members.sum(axis=1), dtype=np.float64).reshape(-1, 1)
    others = codes.shape[0] - counts
    inside = np.asarray((members @ codes).todense(), dtype=np.float64)
    outside = np.asarray(codes.sum(axis=0), dtype=np.float64) - inside
    difference = inside / np.maximum(counts, 1) - outside / np.maximum(others, 1)
    return np.where((counts > 0) & (others > 0), difference, 0.0).astype(np.float32)

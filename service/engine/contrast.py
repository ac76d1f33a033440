"""Compares two sets of users: means, and the probability that a left value is larger. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from service.arrays import Floats, Ints
from service.steering.state import SparseCode


class Differences(NamedTuple):
    """Differences in q quantities, float32 [q] each.

    Attributes:
        left_mean: Means of the left set.
        right_mean: Means of the right set.
        auc: Probability that a left value is above a right one; ties count half.
    """

    left_mean: Floats
    right_mean: Floats
    auc: Floats

    def strongest(self, units: Floats, n: int) -> Ints:
        """Returns the n quantities that differ most, as indices.

        They are ordered by the distance of auc from 1/2, then by that of the means.

        Args:
            units: One typical unit of each quantity, float32 [q].
            n: How many.
        """
        apart = np.abs(self.left_mean - self.right_mean) / units
        order: Ints = np.lexsort((-apart, -np.abs(self.auc - 0.5)))
        return order[:n]


def activations(codes: Sequence[SparseCode], n_neurons: int) -> Floats:
    """Makes a matrix of codes: float32 [m, n_neurons]."""
    dense = np.zeros((len(codes), n_neurons), np.float32)
    for row, code in zip(dense, codes, strict=True):
        row[code.neurons] = code.activations
    return dense


def differences(left: Floats, right: Floats) -> Differences:
    """Compares two samples, [m, q] and [k, q], neither empty."""
    aucs = np.full(left.shape[1], 0.5, np.float32)
    for column in np.flatnonzero(left.any(axis=0) | right.any(axis=0)).tolist():
        aucs[column] = _chance_above(left[:, column], right[:, column])
    return Differences(left.mean(axis=0), right.mean(axis=0), aucs)


def _chance_above(left: Floats, right: Floats) -> float:
    """Computes P(l > r) + P(l = r) / 2 over all pairs."""
    ordered = np.sort(right)
    below = np.searchsorted(ordered, left, "left") + np.searchsorted(ordered, left, "right")
    return float(below.mean()) / (2 * len(right))

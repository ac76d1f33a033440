"""Names the array types of the service, and computes with sets of integers."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Hashes = NDArray[np.uint64]
AnyArray = NDArray[Any]


def are_in(values: Ints, among: Ints) -> Bools:
    """Returns which values are among others: bool, of the values' shape.

    Faster than np.isin for short arrays.

    Args:
        values: int64, of any shape.
        among: int64 [m], ascending.
    """
    if not len(among):
        return np.zeros(values.shape, bool)
    nearest = among[np.minimum(among.searchsorted(values), len(among) - 1)]
    return np.asarray(nearest == values)


def distinct(*parts: Ints) -> Ints:
    """Returns all values in ascending order, each once: int64 [m]. Twice as fast as np.unique."""
    ordered = np.sort(parts[0] if len(parts) == 1 else np.concatenate(parts))
    is_new = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
    return np.asarray(ordered[is_new])


def rows_of(results: AnyArray, parts: Sequence[AnyArray]) -> list[AnyArray]:
    """Splits the results for the concatenated rows of parts into the results of each part."""
    ends = accumulate(map(len, parts))
    return [results[end - len(part) : end] for end, part in zip(ends, parts, strict=True)]

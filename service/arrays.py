"""Names for the array types that the service passes around."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Hashes = NDArray[np.uint64]
AnyArray = NDArray[Any]


def are_in(values: Ints, among: Ints) -> Bools:
    """Which values are among others: bool, of the values' shape; quicker than np.isin for short arrays.

    Args:
        values: int64, of any shape.
        among: int64 [m], ascending.
    """
    if not len(among):
        return np.zeros(values.shape, bool)
    found = among[np.minimum(among.searchsorted(values), len(among) - 1)] == values
    return np.asarray(found)


def distinct(*parts: Ints) -> Ints:
    """All values in ascending order, each once: int64 [m]; np.unique's hashing takes twice as long."""
    ordered = np.sort(parts[0] if len(parts) == 1 else np.concatenate(parts))
    is_new = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
    return np.asarray(ordered[is_new])


def rows_of(found: AnyArray, parts: Sequence[AnyArray]) -> list[AnyArray]:
    """Splits what was found for the rows of all parts, in their order, into what is each part's."""
    ends = accumulate(map(len, parts))
    return [found[end - len(part) : end] for end, part in zip(ends, parts, strict=True)]

"""A user's state: embedding and sparse code."""

from typing import NamedTuple

import numpy as np

from service.arrays import Floats, Ints


class SparseCode(NamedTuple):
    """The active neurons of one user, int64 [m], and their activations, float32 [m]."""

    neurons: Ints
    activations: Floats


NO_CONTEXT: Floats = np.empty(0, np.float32)


class UserState(NamedTuple):
    """A user embedding z, float32 [d], its code, and what else the head reads, float32 [context].

    All are as the precision they are kept in rounds them, on the cold path too, so that a cached
    and a fresh answer are the same.
    """

    z: Floats
    code: SparseCode
    context: Floats = NO_CONTEXT

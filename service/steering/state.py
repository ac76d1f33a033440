"""Defines a user's state: user embedding, sparse code, and context."""

from typing import NamedTuple

import numpy as np

from service.arrays import Floats, Ints


class SparseCode(NamedTuple):
    """The active neurons of one user, int64 [m], and their activations, float32 [m]."""

    neurons: Ints
    activations: Floats


NO_CONTEXT: Floats = np.empty(0, np.float32)


class UserState(NamedTuple):
    """A user embedding with all that steering and the head read.

    All numbers are rounded to the precision in which they are cached, also when they were just
    computed, so that a cached and a fresh answer are the same.

    Attributes:
        z: The user embedding, float32 [d].
        code: Its sparse code.
        context: What the head reads besides z, float32 [context].
    """

    z: Floats
    code: SparseCode
    context: Floats = NO_CONTEXT

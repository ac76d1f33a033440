"""Python's cycle collector, kept from walking through what lives long again and again.

A full collection looks at every object in no order that caches like: with 10,000 kept users 80 ms
in which no call is answered, several times in ten seconds of full load; and it finds next to
nothing, as our objects have no cycles.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

FULL_EVERY = 1_000
"""Collections of the middle generation between two full ones, not 10: minutes apart under full load."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Until exit, no collection looks at what is there now, and full ones are rare."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*before[:2], FULL_EVERY)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()

"""What is stored of one user."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from service.arrays import AnyArray, Hashes, Ints
from service.bundle.catalogue import Catalogue
from service.steering.state import UserState

EVENT = np.dtype([("item", "<u8"), ("time_ms", "<i8"), ("event", "<u8"), ("positive", "?")])


NO_EVENTS = np.empty(0, EVENT)


class RecordedEvent(NamedTuple):
    """An event to store: 64-bit hashes of item and event id, its time, and whether it was positive.

    Without a time it happens now, but never before what is stored already: a server's clock may
    jump back.
    """

    item: int
    time_ms: int | None
    event: int
    positive: bool


class RecordCount(NamedTuple):
    """How many events were new, and how many were there before."""

    accepted: int
    duplicates: int


class CachedEmbedding(NamedTuple):
    """A user state, and how many events of its history were on items that the bundle did not know."""

    state: UserState
    ignored_count: int


@dataclass(frozen=True, slots=True)
class StoredUser:
    """What the store knows of a user.

    Attributes:
        seen: Hashes of the items never to be returned, uint64 [m].
        events: The history, a structured array in time order; empty where an embedding stands for
            it.
        embedding: Set if one is cached that still fits the history.
        stamp: Of the history; empty for an unknown user.
        is_stale: The store did not answer, and this is what it said before.
    """

    seen: Hashes
    events: AnyArray
    embedding: CachedEmbedding | None = None
    stamp: bytes = b""
    is_stale: bool = False
    _seen_in: list[tuple[Catalogue, Ints]] = field(default_factory=list, repr=False, compare=False)

    def seen_in(self, catalogue: Catalogue) -> Ints:
        """Indices of the seen items that the catalogue knows, ascending; worked out once for a catalogue."""
        for known, indices in self._seen_in:
            if known is catalogue:
                return indices
        indices = np.unique(catalogue.indices_of_hashes(self.seen))
        self._seen_in[:] = [(catalogue, indices)]
        return indices


UNKNOWN_USER = StoredUser(np.empty(0, np.uint64), NO_EVENTS)

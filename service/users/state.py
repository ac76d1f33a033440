"""Defines what is stored of one user."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from service.arrays import AnyArray, Hashes, Ints
from service.bundle.catalogue import Catalogue
from service.steering.state import UserState

EVENT = np.dtype([("item", "<u8"), ("time_ms", "<i8"), ("event", "<u8"), ("positive", "?")])
"""One event: item hash, milliseconds since 1970, event hash, whether it is positive."""

NO_EVENTS = np.empty(0, EVENT)


class RecordedEvent(NamedTuple):
    """An event to store.

    Attributes:
        item: 64-bit hash of the item id.
        time_ms: Milliseconds since 1970. None means now, but not before the newest stored event: a
            server's clock may jump back.
        event: 64-bit hash of the event id.
        positive: Whether it is a positive event.
    """

    item: int
    time_ms: int | None
    event: int
    positive: bool


class RecordCount(NamedTuple):
    """The numbers of events that were new, and that were stored before."""

    accepted: int
    duplicates: int


class CachedEmbedding(NamedTuple):
    """A user state, and the number of events in its history whose item the bundle does not know."""

    state: UserState
    ignored_count: int


@dataclass(slots=True)
class StoredUser:
    """What the store knows of a user.

    Attributes:
        seen: Hashes of the items that are never returned again, uint64 [m].
        events: The history, EVENT [m] in time order; empty if a cached embedding makes it
            unnecessary.
        embedding: The cached embedding, if it still fits the history.
        stamp: Stamp of the history; empty for an unknown user.
        is_stale: True if the store did not answer, and this is an earlier answer.
    """

    seen: Hashes
    events: AnyArray
    embedding: CachedEmbedding | None = None
    stamp: bytes = b""
    is_stale: bool = False
    _indices: tuple[Catalogue, Ints] | None = field(default=None, repr=False, compare=False)

    def seen_in(self, catalogue: Catalogue) -> Ints:
        """Returns the ascending indices of the seen items that a catalogue knows: int64 [m].

        The indices in the last catalogue asked for are kept.
        """
        if self._indices is not None:
            known, indices = self._indices
            if known is catalogue:
                return indices
        indices = np.unique(catalogue.indices_of_hashes(self.seen))
        self._indices = (catalogue, indices)
        return indices


UNKNOWN_USER = StoredUser(np.empty(0, np.uint64), NO_EVENTS)
"""A user of whom nothing is stored. Shared by all of them: not to be changed."""

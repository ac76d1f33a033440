"""Caches users in this process.

A cached user is valid only while the invalidation channel is alive: a heartbeat confirms that
earlier changes were delivered. So a change by another worker is seen within SILENCE_S, whatever
happens to the connection. Changes by this worker are seen at once.
"""

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from service.errors import StoreUnavailable
from service.storage.connection import PAUSE_S
from service.telemetry.metrics import Metrics
from service.users.redis_store import SILENCE_S, Delivered, UserStore
from service.users.state import NO_EVENTS, CachedEmbedding, RecordCount, RecordedEvent, StoredUser

MAX_AGE_S = 300.0
"""Seconds until a cached user is read again, so that keys that expired in Redis disappear here."""

ENTRY_BYTES = 1_000
"""Bytes of a cached user's Python objects, without the numbers in its arrays."""


class Entry(NamedTuple):
    """A cached user.

    Attributes:
        model: Cache key of the bundle that it was read for.
        stored: The user.
        size: Its memory, in bytes.
        read_at: When it was read, by time.monotonic().
    """

    model: str
    stored: StoredUser
    size: int
    read_at: float


class UserCache:
    """Reads and writes users of a UserStore, with the most recently used in memory.

    Args:
        store: The store.
        max_bytes: Limit of the memory of all cached users; 0 caches none.
        metrics: Counts reads.
    """

    def __init__(self, store: UserStore, max_bytes: int, metrics: Metrics) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._reads = cache(metrics.tier_reads.labels)
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._reading: dict[tuple[str, str], asyncio.Task[StoredUser]] = {}
        self._complete_at = -SILENCE_S
        self.size = 0
        metrics.tier_bytes.set_function(lambda: self.size)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Drops users that other workers change, until exit; then cancels reads under way."""
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            tasks = [task, *self._reading.values()]
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def read(self, user_id: str, model: str | None) -> StoredUser:
        """Returns a known user: the embedding for a bundle's cache key, else the history.

        Concurrent readers of one user share one read from the store. While the store does not
        answer, cached users are returned marked as stale.

        Raises:
            StoreUnavailable: the store did not answer, and the user is not cached.
        """
        if model is None or not self._max_bytes:
            return await self._store.read(user_id, model)
        now = time.monotonic()
        follows = now < self._complete_at + SILENCE_S
        entry = self._entries.get(user_id)
        if entry is not None and entry.model != model:
            entry = None
        if follows and entry is not None and now < entry.read_at + MAX_AGE_S:
            self._reads("hit").inc()
            self._entries.move_to_end(user_id)
            return entry.stored
        self._reads("miss" if follows else "bypass").inc()
        try:
            return await self._read_shared(user_id, model)
        except StoreUnavailable:
            if entry is None:
                raise
            return replace(entry.stored, is_stale=True)

    async def remember(
        self, user_id: str, model: str, stamp: bytes, embedding: CachedEmbedding
    ) -> None:
        """Caches an embedding here and in the store, unless its history changed meanwhile."""
        entry = self._entries.get(user_id)
        if entry is not None and entry.model == model and entry.stored.stamp == stamp:
            self._keep(user_id, model, StoredUser(entry.stored.seen, NO_EVENTS, embedding, stamp))
        await self._store.remember(user_id, model, stamp, embedding)

    async def record(self, events_of: Mapping[str, Sequence[RecordedEvent]]) -> RecordCount:
        """Adds events to users' histories; later reads by this worker return them."""
        try:
            return await self._store.record(events_of)
        finally:
            for user_id in events_of:
                self._invalidate(user_id)

    async def forget(self, user_id: str) -> bool:
        """Deletes everything about a user; returns whether there was anything."""
        try:
            return await self._store.forget(user_id)
        finally:
            self._invalidate(user_id)

    async def _follow(self) -> None:
        """Applies the changes that the store publishes; resumes after an outage."""
        while True:
            try:
                connected = False
                async for change in self._store.changes():
                    if not connected:  # changes before this were not delivered
                        self._clear()
                        connected = True
                    if isinstance(change, Delivered):
                        self._complete_at = change.until
                    else:
                        self._invalidate(change)
            except StoreUnavailable:
                await asyncio.sleep(PAUSE_S)

    async def _read_shared(self, user_id: str, model: str) -> StoredUser:
        """Reads a user from the store, or waits for the read that is under way."""
        key = (user_id, model)
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.create_task(self._fetch(key))
            # If all its readers have left, nobody retrieves its exception.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _fetch(self, key: tuple[str, str]) -> StoredUser:
        task = asyncio.current_task()
        try:
            stored = await self._store.read(*key)
            if self._reading.get(key) is task:  # otherwise the user changed meanwhile
                self._keep(*key, stored)
            return stored
        finally:
            if self._reading.get(key) is task:
                del self._reading[key]

    def _keep(self, user_id: str, model: str, stored: StoredUser) -> None:
        """Caches a user, and evicts the least recently used beyond the limit."""
        self._remove(user_id)
        size = ENTRY_BYTES + sys.getsizeof(user_id) + _size(stored)
        self._entries[user_id] = Entry(model, stored, size, time.monotonic())
        self.size += size
        while self.size > self._max_bytes:
            self._remove(next(iter(self._entries)))

    def _invalidate(self, user_id: str) -> None:
        """Drops a user whose keys changed, and reads of it that may have been before the change."""
        self._remove(user_id)
        for key in [key for key in self._reading if key[0] == user_id]:
            del self._reading[key]

    def _remove(self, user_id: str) -> None:
        entry = self._entries.pop(user_id, None)
        if entry is not None:
            self.size -= entry.size

    def _clear(self) -> None:
        self._entries.clear()
        self._reading.clear()
        self.size = 0


def _size(stored: StoredUser) -> int:
    """Returns the bytes of the numbers in the arrays; seen items count as hashes and as indices."""
    arrays = [stored.seen, stored.seen, stored.events]
    if stored.embedding is not None:
        state = stored.embedding.state
        arrays += [state.z, state.context, state.code.neurons, state.code.activations]
    return sum(array.nbytes for array in arrays)

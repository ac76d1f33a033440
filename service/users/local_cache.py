"""Users in this process: what was read of them from Redis, kept until it changes.

A kept user counts only while this worker hears of changes: each heartbeat of the store's channel
says that every change before it was told. So another worker's change is seen within the longest
silence, 1 s, whatever happens to the connection; this worker's own changes are seen at once.
"""

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from service.errors import StoreUnavailable
from service.telemetry.metrics import Metrics
from service.users.redis_store import PAUSE_S, SILENCE_S, UserStore
from service.users.state import NO_EVENTS, CachedEmbedding, RecordCount, RecordedEvent, StoredUser

LONGEST_LIFE_S = 300.0
"""After that a user is read again, so that what expires in Redis ends here, too."""


ENTRY_BYTES = 1_000
"""Of a kept user's objects, beside the numbers in its arrays."""


class Kept(NamedTuple):
    """A user as read for a bundle's cache key, how many bytes that takes, and when it was read."""

    model: str
    stored: StoredUser
    size: int
    read_at: float


class UserTier:
    """A UserStore's users, the latest used of them in memory.

    Args:
        store: Where they are.
        max_bytes: Of all kept users; 0 keeps none.
        metrics: Counts reads.
    """

    def __init__(self, store: UserStore, max_bytes: int, metrics: Metrics) -> None:
        self._store, self._max_bytes = store, max_bytes
        self._reads = cache(metrics.tier_reads.labels)
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._reading: dict[tuple[str, str], asyncio.Task[StoredUser]] = {}
        self._complete_at = -SILENCE_S
        self.size = 0
        metrics.tier_bytes.set_function(lambda: self.size)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Forgets what other workers change, until exit."""
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _follow(self) -> None:
        while True:
            try:
                listening = False
                async for change in self._store.changes():
                    if not listening:  # nobody told what changed until now
                        self._clear()
                        listening = True
                    if isinstance(change, float):
                        self._complete_at = change
                    else:
                        self._drop(change)
            except StoreUnavailable:
                await asyncio.sleep(PAUSE_S)

    async def read(self, user_id: str, model: str | None) -> StoredUser:
        """What is known of a user: the embedding for a bundle's cache key, else the history.

        Those who ask for a user that is being read wait for the same answer. While the store does
        not answer, users that are kept are as they were.
        """
        if model is None or not self._max_bytes:
            return await self._store.read(user_id, model)
        now = time.monotonic()
        hears = now < self._complete_at + SILENCE_S
        kept = self._kept.get(user_id)
        if (
            hears
            and kept is not None
            and kept.model == model
            and now < kept.read_at + LONGEST_LIFE_S
        ):
            self._reads("hit").inc()
            self._kept.move_to_end(user_id)
            return kept.stored
        self._reads("miss" if hears else "bypass").inc()
        key = user_id, model
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.create_task(self._fetch(key))
            # Nobody may be left to hear of a fault.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.shield(task)
        except StoreUnavailable:
            if kept is None or kept.model != model:
                raise
            return replace(kept.stored, is_stale=True)

    async def remember(
        self, user_id: str, model: str, stamp: bytes, embedding: CachedEmbedding
    ) -> None:
        """Caches an embedding here and in the store, unless its history changed meanwhile."""
        kept = self._kept.get(user_id)
        if kept is not None and kept.model == model and kept.stored.stamp == stamp:
            self._keep(user_id, model, StoredUser(kept.stored.seen, NO_EVENTS, embedding, stamp))
        await self._store.remember(user_id, model, stamp, embedding)

    async def record(self, events_of: Mapping[str, Sequence[RecordedEvent]]) -> RecordCount:
        """Adds events to users' histories; what this worker reads afterwards has them."""
        try:
            return await self._store.record(events_of)
        finally:
            for user_id in events_of:
                self._drop(user_id)

    async def forget(self, user_id: str) -> bool:
        """Deletes everything about a user; False if there was nothing."""
        try:
            return await self._store.forget(user_id)
        finally:
            self._drop(user_id)

    async def _fetch(self, key: tuple[str, str]) -> StoredUser:
        task = asyncio.current_task()
        try:
            stored = await self._store.read(*key)
            if self._reading.get(key) is task:  # else it changed meanwhile
                self._keep(*key, stored)
            return stored
        finally:
            if self._reading.get(key) is task:
                del self._reading[key]

    def _keep(self, user_id: str, model: str, stored: StoredUser) -> None:
        self._remove(user_id)
        size = ENTRY_BYTES + sys.getsizeof(user_id) + _size(stored)
        self._kept[user_id] = Kept(model, stored, size, time.monotonic())
        self.size += size
        while self.size > self._max_bytes:
            self._remove(next(iter(self._kept)))

    def _drop(self, user_id: str) -> None:
        """Forgets a user whose keys changed, and a read of them that may have been before that."""
        self._remove(user_id)
        for key in [key for key in self._reading if key[0] == user_id]:
            del self._reading[key]

    def _remove(self, user_id: str) -> None:
        kept = self._kept.pop(user_id, None)
        if kept is not None:
            self.size -= kept.size

    def _clear(self) -> None:
        self._kept.clear()
        self._reading.clear()
        self.size = 0


def _size(stored: StoredUser) -> int:
    """Bytes of the arrays' numbers; seen items are kept as hashes and as indices."""
    arrays = [stored.seen, stored.seen, stored.events]
    if stored.embedding is not None:
        state = stored.embedding.state
        arrays += [state.z, state.context, state.code.neurons, state.code.activations]
    return sum(array.nbytes for array in arrays)

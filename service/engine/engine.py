"""Answers queries: reads the user, computes the reply in a batch, and caches the embedding."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol

from service.admission.ladder import Degradation
from service.batching.scheduler import Batcher
from service.engine.audience import Audience, audience
from service.engine.compute import answer
from service.engine.query import Query
from service.engine.reply import Inspection, Reply
from service.errors import DeadlineExpired, StoreUnavailable
from service.telemetry.timings import Timings
from service.users.state import UNKNOWN_USER, CachedEmbedding, StoredUser

MAX_PENDING_WRITES = 1_000
"""Embeddings that wait to be cached. Further ones are not cached, and computed again later."""


class Store(Protocol):
    """What the engine needs of the store of users; see UserCache."""

    async def read(self, user_id: str, model: str | None) -> StoredUser:
        """Returns what is stored of a user."""

    async def remember(
        self, user_id: str, model: str, stamp: bytes, embedding: CachedEmbedding
    ) -> None:
        """Caches an embedding."""


class _Read(NamedTuple):
    """A stored user, and the degradations that reading it met."""

    stored: StoredUser
    degradations: tuple[Degradation, ...]


class Engine:
    """Answers queries.

    Args:
        store: Stores users.
        batcher: Runs computations in batches.
    """

    def __init__(self, store: Store, batcher: Batcher) -> None:
        self._store = store
        self._batcher = batcher
        self._writes: set[asyncio.Task[None]] = set()

    async def recommend(
        self, query: Query, timings: Timings, remaining_s: Callable[[], float]
    ) -> Reply:
        """Answers one query.

        Args:
            query: A valid request.
            timings: Receives the time of each stage.
            remaining_s: Returns the seconds until the caller's deadline.

        Raises:
            DeadlineExpired: the deadline passed before a stage began.
        """
        if remaining_s() <= 0:
            raise DeadlineExpired("the deadline passed before reading the user")
        stored, degradations = await self._read(query)
        timings.lap("store")
        reply = await self._batcher.run(answer(query, stored, timings, degradations), remaining_s)
        if query.history is None and len(reply.audience.history):
            self._remember(query, stored.stamp, reply.audience)
        return reply

    async def inspect(self, query: Query, remaining_s: Callable[[], float]) -> Inspection:
        """Returns the audience of a query, with the history that the encoder reads."""
        stored, degradations = await self._read(query, cached=False)
        who = await self._batcher.run(audience(query, stored), remaining_s)
        return Inspection(who, degradations)

    async def close(self) -> None:
        """Waits for the embeddings that are being cached."""
        await asyncio.gather(*self._writes, return_exceptions=True)

    async def _read(self, query: Query, *, cached: bool = True) -> _Read:
        """Reads a query's user, with a cached embedding if there is one and cached is true."""
        if not query.user_id:
            return _Read(UNKNOWN_USER, ())
        try:
            model = query.bundle.cache_key if cached else None
            stored = await self._store.read(query.user_id, model)
            if stored.embedding is not None and not query.bundle.fits(stored.embedding.state):
                stored = await self._store.read(query.user_id, None)
            return _Read(stored, (Degradation.NO_STORE,) if stored.is_stale else ())
        except StoreUnavailable:
            return _Read(UNKNOWN_USER, (Degradation.NO_STORE,))

    def _remember(self, query: Query, stamp: bytes, who: Audience) -> None:
        """Starts to cache an embedding; the reply does not wait for it."""
        if len(self._writes) >= MAX_PENDING_WRITES:
            return
        embedding = CachedEmbedding(who.state, who.ignored_count)
        task = asyncio.create_task(self._write(query, stamp, embedding))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write(self, query: Query, stamp: bytes, embedding: CachedEmbedding) -> None:
        # If the store is gone, the next request computes the embedding again, and says so.
        with suppress(StoreUnavailable):
            await self._store.remember(query.user_id, query.bundle.cache_key, stamp, embedding)

"""One recommendation, start to end: the house's hallway. Each step of `answer` is a call into one module.

`answer` is pure: it reads a query and what the store knew, and returns a reply; where it needs a
model or the index it yields (see service.batching.joint_calls), so that lists asked for at once share their work.
`Engine` puts it between the store and the caller.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from service.admission.ladder import Degradation
from service.batching.scheduler import Batcher
from service.engine.audience import Audience, audience
from service.engine.compute import answer
from service.engine.query import Query
from service.engine.reply import Inspection, Reply
from service.errors import DeadlineExpired, StoreUnavailable
from service.telemetry.timings import Timings
from service.users.state import UNKNOWN_USER, CachedEmbedding, StoredUser

MOST_WRITES_PENDING = 1_000
"""Embeddings waiting to be cached; beyond that they are not: they will be computed again."""


class Store(Protocol):
    """What the engine needs of user state; see UserStore."""

    async def read(self, user_id: str, model: str | None) -> StoredUser:
        """What is stored of a user."""

    async def remember(
        self, user_id: str, model: str, stamp: bytes, embedding: CachedEmbedding
    ) -> None:
        """Caches an embedding."""


class Engine:
    """Answers queries.

    Args:
        store: User state.
        batcher: Runs computations.
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
            query: Valid.
            timings: Gets the stages' times.
            remaining_s: Seconds until the caller's deadline.

        Raises:
            DeadlineExpired: before a stage began.
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
        """Who a query is for, with the history that the encoder reads, and without making a list."""
        stored, degradations = await self._read(query, cached=False)
        return Inspection(
            await self._batcher.run(audience(query, stored), remaining_s), degradations
        )

    async def close(self) -> None:
        """Waits for the embeddings that are being cached."""
        await asyncio.gather(*self._writes, return_exceptions=True)

    async def _read(
        self, query: Query, *, cached: bool = True
    ) -> tuple[StoredUser, tuple[Degradation, ...]]:
        if not query.user_id:
            return UNKNOWN_USER, ()
        try:
            stored = await self._store.read(
                query.user_id, query.bundle.cache_key if cached else None
            )
            if stored.embedding is not None and not query.bundle.fits(stored.embedding.state):
                stored = await self._store.read(query.user_id, None)
            return stored, (Degradation.NO_STORE,) if stored.is_stale else ()
        except StoreUnavailable:
            return UNKNOWN_USER, (Degradation.NO_STORE,)

    def _remember(self, query: Query, stamp: bytes, who: Audience) -> None:
        """Caches the embedding after the reply, not on its path."""
        if len(self._writes) >= MOST_WRITES_PENDING:
            return
        task = asyncio.create_task(
            self._write(query, stamp, CachedEmbedding(who.state, who.ignored_count))
        )
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write(self, query: Query, stamp: bytes, embedding: CachedEmbedding) -> None:
        # If the store is gone, the next request computes the embedding again, and says so.
        with suppress(StoreUnavailable):
            await self._store.remember(query.user_id, query.bundle.cache_key, stamp, embedding)

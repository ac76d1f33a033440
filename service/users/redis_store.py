"""Stores users in Redis: histories, seen items, and cached embeddings.

    tt:{user}:s            seen items: header, then one 64-bit item hash each
    tt:{user}:h            history: header, then one fixed-width record per event, in time order
    tt:{user}:e:{model}    a cached embedding: header, neurons; z, context, activations as float16
                           or int8
    tt:models              cache keys of the bundles that were loaded, by time
    tt:changes             a channel: each message names a user whose history or seen items changed,
                           and the worker that changed them

The braces keep the keys of one user in one slot of a Redis Cluster. Every change of a history
writes a new random stamp into the headers of s and h. A cached embedding carries the stamp of the
history that it was computed from, and is valid only while s carries the same. So a warm request
reads only e and s, in one MGET.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from service.bundle.precision import Precision
from service.errors import StoreUnavailable
from service.storage.connection import (
    CircuitBreaker,
    ScriptCall,
    answering,
    connect,
    disconnect,
    run_script,
)
from service.storage.pipelined_reads import SharedReads
from service.users.codec import (
    BlobError,
    merge,
    pack_embedding,
    pack_history,
    pack_seen,
    unpack_embedding,
    unpack_history,
    unpack_seen,
)
from service.users.state import (
    NO_EVENTS,
    UNKNOWN_USER,
    CachedEmbedding,
    RecordCount,
    RecordedEvent,
    StoredUser,
)

MAX_MODELS = 1_000
"""Cache keys kept in tt:models, the newest."""

RECORD_ATTEMPTS = 40
"""Attempts to record events of users whose histories other writers change at the same time."""

MAX_BACKOFF_S = 0.05
"""Longest random pause between two of these attempts, in seconds."""

MIN_WRITE_TIMEOUT_S = 5.0
"""Shortest time, in seconds, that a write may take, however short the reads' timeout is."""

HEARTBEAT_S = 0.25
"""Seconds between the pings by which a follower of changes checks its connection."""

SILENCE_S = 1.0
"""Seconds without any answer, even to a ping, after which the server counts as gone."""

_MODELS_KEY = "tt:models"

_CHANGES = "tt:changes"

_STAMP_BYTES = 8

_WORKER_BYTES = 8

_WRITE_IF_UNCHANGED = """
if redis.call('GETRANGE', KEYS[1], 8, 15) ~= ARGV[1] then return 0 end
for i = 1, 2 do
  redis.call('SET', KEYS[i], ARGV[i + 1])
  if ARGV[4] ~= '0' then redis.call('EXPIRE', KEYS[i], ARGV[4]) end
end
redis.call('PUBLISH', 'tt:changes', ARGV[5])
return 1
"""

_CACHE_IF_CURRENT = """
if redis.call('GETRANGE', KEYS[1], 8, 15) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return 1
"""


class Delivered(NamedTuple):
    """All changes before a moment, by time.monotonic(), have been delivered."""

    until: float


class _Update(NamedTuple):
    """New keys of a user.

    Attributes:
        recorded: How many events were new.
        stamp: Stamp of the history that was read; the keys are written only if it still holds.
        seen: The new seen items, packed.
        history: The new history, packed.
    """

    recorded: RecordCount
    stamp: bytes
    seen: bytes
    history: bytes


class UserStore:
    """Reads and writes users' keys. Every method raises StoreUnavailable if Redis does not answer.

    Args:
        url: redis://, rediss:// or unix://.
        max_history: Positive events kept for each user, and as many negative ones.
        history_ttl_s: Seconds that histories and seen items live after their last change; 0 keeps
            them.
        embedding_ttl_s: Seconds that cached embeddings live.
        timeout_s: Longest time that a read may take.
        precision: Precision of cached embeddings; embeddings of another precision are ignored.
        clock: Returns the seconds since 1970.
    """

    def __init__(
        self,
        url: str,
        *,
        max_history: int,
        history_ttl_s: int,
        embedding_ttl_s: int,
        timeout_s: float,
        precision: Precision = Precision.FLOAT16,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reading = connect(url, timeout_s)
        self._reads = SharedReads(self._reading)
        self._writing = connect(url, max(timeout_s, MIN_WRITE_TIMEOUT_S))
        self._max_history = max_history
        self._history_ttl_s = history_ttl_s
        self._embedding_ttl_s = embedding_ttl_s
        self._precision = precision
        self._clock = clock
        self._models: set[str] = set()
        self._registered: set[str] = set()
        self._breaker = CircuitBreaker(on_recovery=self._registered.clear)
        self._worker = os.urandom(_WORKER_BYTES)

    async def close(self) -> None:
        """Closes the connections."""
        await self._reads.close()
        await disconnect(self._reading, self._writing)

    async def persistence(self) -> bool:
        """Returns whether the server says that it writes to disk."""
        info = await self._breaker.run(self._writing.info("persistence"))
        saves = await self._breaker.run(self._writing.config_get("save"))
        return bool(info.get("aof_enabled")) or bool(saves.get("save"))

    async def read(self, user_id: str, model: str | None) -> StoredUser:
        """Returns a stored user: the embedding for a bundle's cache key, else the history."""
        seen_key, history_key, embedding_key = _keys(user_id, model or "")
        seen_blob, blob = await self._breaker.run(self._reads.mget(seen_key, embedding_key))
        if seen_blob is None:
            return UNKNOWN_USER
        try:
            seen, stamp = unpack_seen(seen_blob)
            embedding = unpack_embedding(blob, stamp, self._precision) if blob is not None else None
            if embedding is not None:
                return StoredUser(seen, NO_EVENTS, embedding, stamp)
            (history_blob,) = await self._breaker.run(self._reads.mget(history_key))
            if history_blob is None:
                return StoredUser(seen, NO_EVENTS, stamp=stamp)
            events, stamp = unpack_history(history_blob)
            return StoredUser(seen, events, stamp=stamp)
        except BlobError as error:
            raise StoreUnavailable(f"user {user_id!r}: {error}") from error

    async def remember(
        self, user_id: str, model: str, stamp: bytes, embedding: CachedEmbedding
    ) -> None:
        """Caches an embedding, unless its history was changed or forgotten meanwhile."""
        if model not in self._registered:  # Redis was gone at the start, or lost its keys
            await self.register_model(model)
        seen_key, _, embedding_key = _keys(user_id, model)
        blob = pack_embedding(embedding, stamp, self._precision)
        call = ScriptCall((seen_key, embedding_key), (stamp, blob, self._embedding_ttl_s))
        await self._breaker.run(run_script(self._writing, _CACHE_IF_CURRENT, [call]))

    async def record(self, events_of: Mapping[str, Sequence[RecordedEvent]]) -> RecordCount:
        """Adds events to users' histories.

        Each user's events are written at once, and only if nobody else wrote since they were read.
        """
        accepted = 0
        duplicates = 0
        pending = dict(events_of)
        for attempt in range(RECORD_ATTEMPTS):
            if attempt:  # another writer was faster: a random pause keeps the two apart
                await asyncio.sleep(random.uniform(0, min(0.001 * 2**attempt, MAX_BACKOFF_S)))
            written = await self._breaker.run(self._try_record(pending))
            for user_id, count in written.items():
                accepted += count.accepted
                duplicates += count.duplicates
                del pending[user_id]
            if not pending:
                return RecordCount(accepted, duplicates)
        raise StoreUnavailable(
            f"the histories of {len(pending)} users changed too often meanwhile: try again"
        )

    async def forget(self, user_id: str) -> bool:
        """Deletes everything about a user; returns whether there was anything."""
        registered = await self._breaker.run(self._writing.zrange(_MODELS_KEY, 0, -1))
        models = self._models | {model.decode() for model in registered}
        embeddings = [_keys(user_id, model)[2] for model in models]
        keys = [*_keys(user_id)[:2], *embeddings]
        deleted = bool(await self._breaker.run(self._writing.delete(*keys)))
        await self._breaker.run(self._writing.publish(_CHANGES, self._change(user_id)))
        return deleted

    async def changes(self) -> AsyncIterator[str | Delivered]:
        """Yields users that other workers changed, and moments up to which all are delivered."""
        async with self._writing.pubsub() as channel:
            await self._breaker.run(channel.subscribe(_CHANGES))
            subscribed = False
            while True:
                asked = time.monotonic()
                answered = False
                await self._breaker.run(channel.ping())
                while not answered or time.monotonic() < asked + HEARTBEAT_S:
                    message = await self._next(channel) or {"type": None}
                    if message["type"] == "message":
                        data = message["data"]
                        if data[:_WORKER_BYTES] != self._worker:
                            yield data[_WORKER_BYTES:].decode()
                    elif message["type"] == "pong":
                        answered = True
                        yield Delivered(asked)
                    elif message["type"] == "subscribe":
                        if subscribed:  # redis-py has reconnected silently
                            raise StoreUnavailable("the connection was lost, and changes with it")
                        subscribed = True
                    elif not answered and time.monotonic() > asked + SILENCE_S:
                        raise StoreUnavailable(f"Redis said nothing for {SILENCE_S:g} s")

    async def register_model(self, model: str) -> None:
        """Stores a bundle's cache key, so that forgetting a user finds its embeddings."""
        self._models.add(model)
        await self._breaker.run(self._writing.zadd(_MODELS_KEY, {model: self._clock()}))
        await self._breaker.run(self._writing.zremrangebyrank(_MODELS_KEY, 0, -MAX_MODELS - 1))
        self._registered.add(model)

    async def _try_record(
        self, events_of: Mapping[str, Sequence[RecordedEvent]]
    ) -> dict[str, RecordCount]:
        """Makes one optimistic attempt to add events.

        Returns:
            The counts of the users whose histories did not change between reading and writing.
        """
        keys = {user_id: _keys(user_id)[:2] for user_id in events_of}
        async with self._writing.pipeline(transaction=False) as pipeline:
            for pair in keys.values():
                pipeline.mget(*pair)
            blobs = await pipeline.execute()
        updates = await asyncio.to_thread(self._updates, events_of, blobs)
        changed = [user_id for user_id, update in updates.items() if update.recorded.accepted]
        calls = [self._write_call(user_id, keys[user_id], updates[user_id]) for user_id in changed]
        done = await run_script(self._writing, _WRITE_IF_UNCHANGED, calls) if calls else []
        refused = {user_id for user_id, ok in zip(changed, done, strict=True) if not ok}
        return {
            user_id: update.recorded
            for user_id, update in updates.items()
            if user_id not in refused
        }

    def _write_call(self, user_id: str, keys: Sequence[str], update: _Update) -> ScriptCall:
        arguments = (
            update.stamp,
            update.seen,
            update.history,
            self._history_ttl_s,
            self._change(user_id),
        )
        return ScriptCall(keys, arguments)

    def _updates(
        self,
        events_of: Mapping[str, Sequence[RecordedEvent]],
        blobs: Sequence[Sequence[bytes | None]],
    ) -> dict[str, _Update]:
        """Merges the events into what was read of each user: seen items and history.

        Raises:
            StoreUnavailable: what is stored cannot be read.
        """
        now_ms = int(self._clock() * 1_000)
        try:
            return {
                user_id: self._update(events, seen_blob, history_blob, now_ms)
                for (user_id, events), (seen_blob, history_blob) in zip(
                    events_of.items(), blobs, strict=True
                )
            }
        except BlobError as error:
            raise StoreUnavailable(str(error)) from error

    def _update(
        self,
        events: Sequence[RecordedEvent],
        seen_blob: bytes | None,
        history_blob: bytes | None,
        now_ms: int,
    ) -> _Update:
        seen = UNKNOWN_USER.seen
        stamp = b""
        if seen_blob is not None:
            seen, stamp = unpack_seen(seen_blob)
        history = NO_EVENTS if history_blob is None else unpack_history(history_blob)[0]
        merged = merge(history, seen, events, self._max_history, now_ms)
        new_stamp = os.urandom(_STAMP_BYTES)
        return _Update(
            recorded=merged.recorded,
            stamp=stamp,
            seen=pack_seen(merged.seen, new_stamp),
            history=pack_history(merged.history, new_stamp),
        )

    async def _next(self, channel: Any) -> dict[str, Any] | None:
        """Returns the channel's next message, or None if there is none for a heartbeat's time."""
        with answering():
            message: dict[str, Any] | None = await channel.get_message(timeout=HEARTBEAT_S)
            return message

    def _change(self, user_id: str) -> bytes:
        """Makes the message that tells other workers of a change."""
        return self._worker + user_id.encode()


def _keys(user_id: str, model: str = "") -> tuple[str, str, str]:
    """Returns a user's keys: seen items, history, and the embedding for a bundle's cache key."""
    base = f"tt:{{{user_id}}}:"
    return f"{base}s", f"{base}h", f"{base}e:{model}"

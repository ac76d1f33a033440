"""Users in Redis: histories, seen items, and cached embeddings.

    tt:{user}:s            seen items: header, then one 64-bit item hash each
    tt:{user}:h            history: header, then one fixed-width record an event, in time order
    tt:{user}:e:{model}    one packed blob: header, neurons; z, context, activations, as float16 or
    int8 tt:models              cache keys of the bundles that were loaded, by time
    tt:changes             a channel: whose history or seen items changed, and which worker changed
    them

The braces keep one user's keys in one slot of a Redis Cluster. Every change of a history writes a
new random stamp into the headers of s and h; a cached embedding carries the stamp of the history
that it was made from, and counts only while s carries the same. So a warm request reads just e and
s, in one MGET.
"""

import asyncio
import hashlib
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from redis.exceptions import MaxConnectionsError, NoScriptError, RedisError, ResponseError

from service.bundle.precision import Precision
from service.errors import StoreUnavailable
from service.storage.connection import answering, connect, disconnect
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


RECORD_ATTEMPTS = 40


LONGEST_BACKOFF_S = 0.05


PAUSE_S = 1.0
"""After a fault the store counts as gone for so long: requests do not queue up behind a timeout each."""


_MODELS_KEY = "tt:models"


_CHANGES = "tt:changes"


HEARTBEAT_S = 0.25
"""How often a follower of changes asks whether it still hears the server."""


SILENCE_S = 1.0
"""A server that says nothing for so long, not even to a ping, is gone."""


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


T = TypeVar("T")


_log = logging.getLogger(__name__)


class UserStore:
    """Reads and writes users' keys. Every method raises StoreUnavailable when Redis does not answer.

    Args:
        url: redis://, rediss:// or unix://.
        max_history: Positive events kept a user, and as many negative ones.
        history_ttl_s: Life of histories and seen items since their last change; 0 keeps them.
        embedding_ttl_s: Life of cached embeddings.
        timeout_s: How long a read may take.
        precision: Of cached embeddings; those of another are as none.
        clock: Seconds since 1970.
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
        self._writing = connect(url, max(timeout_s, 5.0))
        self._max_history = max_history
        self._history_ttl_s = history_ttl_s
        self._embedding_ttl_s = embedding_ttl_s
        self._precision = precision
        self._clock = clock
        self._models: set[str] = set()
        self._noted_models: set[str] = set()
        self._gone_until = 0.0
        self._worker = os.urandom(8)

    async def close(self) -> None:
        """Closes the connections."""
        await self._reads.close()
        await disconnect(self._reading, self._writing)

    async def persistence(self) -> bool:
        """True if the server says that it writes to disk."""
        info = await self._guard(self._writing.info("persistence"))
        saves = await self._guard(self._writing.config_get("save"))
        return bool(info.get("aof_enabled")) or bool(saves.get("save"))

    async def read(self, user_id: str, model: str | None) -> StoredUser:
        """What is stored of a user: the embedding for a bundle's cache key, else the history."""
        seen_key, history_key, embedding_key = _keys(user_id, model or "")
        seen_blob, blob = await self._guard(self._reads.mget(seen_key, embedding_key))
        if seen_blob is None:
            return UNKNOWN_USER
        try:
            seen, stamp = unpack_seen(seen_blob)
            embedding = unpack_embedding(blob, stamp, self._precision) if blob is not None else None
            if embedding is not None:
                return StoredUser(seen, NO_EVENTS, embedding, stamp)
            (history_blob,) = await self._guard(self._reads.mget(history_key))
            if history_blob is None:
                return StoredUser(seen, NO_EVENTS, stamp=stamp)
            events, stamp = unpack_history(history_blob)
            return StoredUser(seen, events, stamp=stamp)
        except BlobError as error:
            raise StoreUnavailable(f"user {user_id!r}: {error}") from error

    async def remember(
        self, user_id: str, model: str, stamp: bytes, embedding: CachedEmbedding
    ) -> None:
        """Caches an embedding, unless its history changed or was forgotten meanwhile."""
        if (
            model not in self._noted_models
        ):  # the store was gone when the bundle was loaded, or lost its keys
            await self.register_model(model)
        seen_key, _, embedding_key = _keys(user_id, model)
        blob = pack_embedding(embedding, stamp, self._precision)
        await self._guard(
            self._evaluate(
                _CACHE_IF_CURRENT, (seen_key, embedding_key), (stamp, blob, self._embedding_ttl_s)
            )
        )

    async def record(self, events_of: Mapping[str, Sequence[RecordedEvent]]) -> RecordCount:
        """Adds events to users' histories, each user's at once and only if nobody else wrote in between."""
        accepted = duplicates = 0
        pending = dict(events_of)
        for attempt in range(RECORD_ATTEMPTS):
            if (
                attempt
            ):  # somebody else wrote a history in between: wait a random while, or all meet again
                await asyncio.sleep(random.uniform(0, min(0.001 * 2**attempt, LONGEST_BACKOFF_S)))
            written = await self._guard(self._try_record(pending))
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
        """Deletes everything about a user; False if there was nothing."""
        noted = await self._guard(self._writing.zrange(_MODELS_KEY, 0, -1))
        models = self._models | {model.decode() for model in noted}
        embeddings = [_keys(user_id, model)[2] for model in models]
        found = bool(await self._guard(self._writing.delete(*_keys(user_id)[:2], *embeddings)))
        await self._guard(self._writing.publish(_CHANGES, self._change(user_id)))
        return found

    async def changes(self) -> AsyncIterator[str | float]:
        """Users whose keys another worker changed; and moments (time.monotonic) until which all is told."""
        async with self._writing.pubsub() as channel:
            await self._guard(channel.subscribe(_CHANGES))
            subscribed = False
            while True:
                asked, answered = time.monotonic(), False
                await self._guard(channel.ping())
                while not answered or time.monotonic() < asked + HEARTBEAT_S:
                    message = await self._next(channel) or {"type": None}
                    if message["type"] == "message":
                        worker, user_id = message["data"][:8], message["data"][8:]
                        if worker != self._worker:
                            yield user_id.decode()
                    elif message["type"] == "pong":
                        answered = True
                        yield asked
                    elif message["type"] == "subscribe" and not subscribed:
                        subscribed = True
                    elif (
                        message["type"] == "subscribe"
                    ):  # redis-py connected anew and says nothing of it
                        raise StoreUnavailable("the connection was lost, and changes with it")
                    elif not answered and time.monotonic() > asked + SILENCE_S:
                        raise StoreUnavailable(f"Redis said nothing for {SILENCE_S:g} s")

    async def register_model(self, model: str) -> None:
        """Notes a bundle's cache key, so that forgetting a user finds the embeddings of every model."""
        self._models.add(model)
        await self._guard(self._writing.zadd(_MODELS_KEY, {model: self._clock()}))
        await self._guard(self._writing.zremrangebyrank(_MODELS_KEY, 0, -MAX_MODELS - 1))
        self._noted_models.add(model)

    async def _try_record(
        self, events_of: Mapping[str, Sequence[RecordedEvent]]
    ) -> dict[str, RecordCount]:
        """One optimistic round: the users whose histories had not changed between reading and writing."""
        keys = {user_id: _keys(user_id)[:2] for user_id in events_of}
        async with self._writing.pipeline(transaction=False) as pipeline:
            for pair in keys.values():
                pipeline.mget(*pair)
            blobs = await pipeline.execute()
        merged = await asyncio.to_thread(self._merge, events_of, blobs)
        changed = {user_id: new for user_id, (count, new) in merged.items() if count.accepted}
        writes = [
            (keys[user_id], (*new, self._history_ttl_s, self._change(user_id)))
            for user_id, new in changed.items()
        ]
        done = await self._evaluate_all(_WRITE_IF_UNCHANGED, writes) if writes else []
        lost = {user_id for user_id, ok in zip(changed, done, strict=True) if not ok}
        return {user_id: count for user_id, (count, _) in merged.items() if user_id not in lost}

    def _merge(
        self,
        events_of: Mapping[str, Sequence[RecordedEvent]],
        blobs: Sequence[Sequence[bytes | None]],
    ) -> dict[str, tuple[RecordCount, tuple[bytes, bytes, bytes]]]:
        """For each user what is new, and what to write if the stamp still holds: seen items, history."""
        merged = {}
        now_ms = int(self._clock() * 1_000)
        for (user_id, events), (seen_blob, history_blob) in zip(
            events_of.items(), blobs, strict=True
        ):
            seen, stamp = (
                unpack_seen(seen_blob) if seen_blob is not None else (UNKNOWN_USER.seen, b"")
            )
            history = NO_EVENTS if history_blob is None else unpack_history(history_blob)[0]
            history, seen, count = merge(history, seen, events, self._max_history, now_ms)
            fresh = os.urandom(8)
            merged[user_id] = count, (stamp, pack_seen(seen, fresh), pack_history(history, fresh))
        return merged

    async def _next(self, channel: Any) -> dict[str, Any] | None:
        """A message, or None after a heartbeat's time without one."""
        with answering():
            found: dict[str, Any] | None = await channel.get_message(timeout=HEARTBEAT_S)
            return found

    def _change(self, user_id: str) -> bytes:
        """What is published of a change."""
        return self._worker + user_id.encode()

    async def _evaluate(self, script: str, keys: Iterable[str], args: Iterable[object]) -> object:
        return (await self._evaluate_all(script, [(tuple(keys), tuple(args))]))[0]

    async def _evaluate_all(
        self, script: str, calls: Sequence[tuple[tuple[str, ...], tuple[object, ...]]]
    ) -> list[object]:
        digest = hashlib.sha1(script.encode()).hexdigest()
        for _ in range(2):
            async with self._writing.pipeline(transaction=False) as pipeline:
                for keys, args in calls:
                    pipeline.evalsha(digest, len(keys), *keys, *args)
                results = await pipeline.execute(raise_on_error=False)
            if not any(isinstance(result, NoScriptError) for result in results):
                break
            await self._writing.script_load(script)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return list(results)

    async def _guard(self, call: Awaitable[T]) -> T:
        """Awaits a call to Redis; faults become StoreUnavailable, and pause further calls for a moment."""
        if time.monotonic() < self._gone_until:
            if asyncio.iscoroutine(call):
                call.close()
            raise StoreUnavailable("Redis did not answer a moment ago")
        try:
            answer = await call
        except BlobError as error:
            raise StoreUnavailable(str(error)) from error
        except (RedisError, OSError, TimeoutError) as error:
            # An answer, if only that its memory is full, or a pool that is busy: Redis is not gone.
            if not isinstance(error, ResponseError | MaxConnectionsError):
                self._lost(error)
            raise StoreUnavailable(f"Redis: {type(error).__name__}: {error}") from error
        if self._gone_until:
            _log.info("Redis answers again")
            self._gone_until = 0.0
            self._noted_models.clear()
        return answer

    def _lost(self, error: Exception) -> None:
        if not self._gone_until:
            _log.warning(
                "Redis is gone, lists go on without it: %s: %s", type(error).__name__, error
            )
        self._gone_until = time.monotonic() + PAUSE_S


def _keys(user_id: str, model: str = "") -> tuple[str, str, str]:
    base = f"tt:{{{user_id}}}:"
    return f"{base}s", f"{base}h", f"{base}e:{model}"

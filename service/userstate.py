"""Users in Redis: histories, seen items, and cached embeddings.

    tt:{user}:s            seen items: header, then one 64-bit item hash each
    tt:{user}:h            history: header, then one fixed-width record an event, in time order
    tt:{user}:e:{model}    one packed blob: header, z as float16, neurons, activations as float16
    tt:models              cache keys of the bundles that were loaded, by time

The braces keep one user's keys in one slot of a Redis Cluster. Every change of a history writes a new random
stamp into the headers of s and h; a cached embedding carries the stamp of the history that it was made from,
and counts only while s carries the same. So a warm request reads just e and s, in one MGET.
"""

import asyncio
import hashlib
import os
import random
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from service.arrays import AnyArray, Hashes
from service.encoding import UserState
from service.errors import StoreUnavailable
from service.steering import SparseCode

MAX_SEEN = 20_000
"""Seen items kept a user: longer than any history, so that old items do not come back."""
MAX_MODELS = 1_000
RECORD_ATTEMPTS = 40
LONGEST_BACKOFF_S = 0.05
PAUSE_S = 1.0
"""After a fault the store counts as gone for so long: requests do not queue up behind a timeout each."""

_EVENT = np.dtype([("item", "<u8"), ("time_ms", "<i8"), ("event", "<u8"), ("positive", "?")])
_HEADER = struct.Struct("<8s8s")  # magic with version, stamp
_EMBEDDING = struct.Struct(
    "<2sHHxB8s"
)  # magic with version, active neurons, ignored items, index width, stamp
_SEEN_MAGIC, _HISTORY_MAGIC, _EMBEDDING_MAGIC = b"tt-seen1", b"tt-hist1", b"e1"
_WIDE_FROM = 2**16
_MODELS_KEY = "tt:models"

_WRITE_IF_UNCHANGED = """
if redis.call('GETRANGE', KEYS[1], 8, 15) ~= ARGV[1] then return 0 end
for i = 1, 2 do
  redis.call('SET', KEYS[i], ARGV[i + 1])
  if ARGV[4] ~= '0' then redis.call('EXPIRE', KEYS[i], ARGV[4]) end
end
return 1
"""
_CACHE_IF_CURRENT = """
if redis.call('GETRANGE', KEYS[1], 8, 15) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
return 1
"""

T = TypeVar("T")


class RecordedEvent(NamedTuple):
    """An event to store: 64-bit hashes of item and event id, its time, and whether it was positive.

    Without a time it happens now, but never before what is stored already: a server's clock may jump back.
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
        events: The history, a structured array in time order; empty if an embedding made it unnecessary to
            read.
        embedding: Set if one is cached that still fits the history.
        stamp: Of the history; empty for an unknown user.
    """

    seen: Hashes
    events: AnyArray
    embedding: CachedEmbedding | None = None
    stamp: bytes = b""


NO_EVENTS = np.empty(0, _EVENT)
UNKNOWN_USER = StoredUser(np.empty(0, np.uint64), NO_EVENTS)


def event_hash(*parts: str) -> int:
    """64-bit BLAKE2b of an event id, or of what stands in for one."""
    joined = "\0".join(parts).encode()
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "little")


class UserStore:
    """Reads and writes users' keys. Every method raises StoreUnavailable when Redis does not answer.

    Args:
        url: redis://, rediss:// or unix://.
        max_history: Positive events kept a user, and as many negative ones.
        history_ttl_s: Life of histories and seen items since their last change; 0 keeps them.
        embedding_ttl_s: Life of cached embeddings.
        timeout_s: How long a read may take.
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
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reading = _client(url, timeout_s)
        self._writing = _client(url, max(timeout_s, 5.0))
        self._max_history = max_history
        self._history_ttl_s = history_ttl_s
        self._embedding_ttl_s = embedding_ttl_s
        self._clock = clock
        self._gone_until = 0.0

    async def close(self) -> None:
        """Closes the connections."""
        await self._reading.aclose()
        await self._writing.aclose()
        await asyncio.sleep(0)  # redis-py closes its sockets without waiting for the loop to do so

    async def ping(self) -> None:
        """Returns if Redis answers."""
        await self._guard(self._reading.ping())

    async def persistence(self) -> bool:
        """True if the server says that it writes to disk."""
        info = await self._guard(self._writing.info("persistence"))
        saves = await self._guard(self._writing.config_get("save"))
        return bool(info.get("aof_enabled")) or bool(saves.get("save"))

    async def read(self, user_id: str, model: str | None) -> StoredUser:
        """What is stored of a user: the embedding for a bundle's cache key, else the history."""
        seen_key, history_key, embedding_key = _keys(user_id, model or "")
        seen_blob, blob = await self._guard(self._reading.mget(seen_key, embedding_key))
        if seen_blob is None:
            return UNKNOWN_USER
        stamp, seen = _unpack(seen_blob, np.dtype("<u8"))
        embedding = unpack_embedding(blob, stamp) if blob is not None else None
        if embedding is not None:
            return StoredUser(seen, NO_EVENTS, embedding, stamp)
        history_blob = await self._guard(self._reading.get(history_key))
        if history_blob is None:
            return StoredUser(seen, NO_EVENTS, stamp=stamp)
        stamp, events = _unpack(history_blob, _EVENT)
        return StoredUser(seen, events, stamp=stamp)

    async def remember(self, user_id: str, model: str, stamp: bytes, embedding: CachedEmbedding) -> None:
        """Caches an embedding, unless its history changed or was forgotten meanwhile."""
        seen_key, _, embedding_key = _keys(user_id, model)
        blob = pack_embedding(embedding, stamp)
        await self._guard(
            self._evaluate(_CACHE_IF_CURRENT, (seen_key, embedding_key), (stamp, blob, self._embedding_ttl_s))
        )

    async def record(self, events_of: Mapping[str, Sequence[RecordedEvent]]) -> RecordCount:
        """Adds events to users' histories, each user's at once and only if nobody else wrote in between."""
        accepted = duplicates = 0
        pending = dict(events_of)
        for attempt in range(RECORD_ATTEMPTS):
            if attempt:  # somebody else wrote a history in between: wait a random while, or all meet again
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
        models = await self._guard(self._writing.zrange(_MODELS_KEY, 0, -1))
        embeddings = [_keys(user_id, model.decode())[2] for model in models]
        return bool(await self._guard(self._writing.delete(*_keys(user_id)[:2], *embeddings)))

    async def register_model(self, model: str) -> None:
        """Notes a bundle's cache key, so that forgetting a user finds the embeddings of every model."""
        await self._guard(self._writing.zadd(_MODELS_KEY, {model: time.time()}))
        await self._guard(self._writing.zremrangebyrank(_MODELS_KEY, 0, -MAX_MODELS - 1))

    async def _try_record(self, events_of: Mapping[str, Sequence[RecordedEvent]]) -> dict[str, RecordCount]:
        """One optimistic round: the users whose histories had not changed between reading and writing."""
        keys = {user_id: _keys(user_id)[:2] for user_id in events_of}
        async with self._writing.pipeline(transaction=False) as pipeline:
            for pair in keys.values():
                pipeline.mget(*pair)
            blobs = await pipeline.execute()
        counts = {}
        writes = []
        for (user_id, events), (seen_blob, history_blob) in zip(events_of.items(), blobs, strict=True):
            stamp, seen = _unpack(seen_blob, np.dtype("<u8")) if seen_blob else (b"", UNKNOWN_USER.seen)
            history = _unpack(history_blob, _EVENT)[1] if history_blob else NO_EVENTS
            now_ms = int(self._clock() * 1_000)
            history, seen, counts[user_id] = merge(history, seen, events, self._max_history, now_ms)
            fresh = os.urandom(8)
            new = (_pack(_SEEN_MAGIC, fresh, seen), _pack(_HISTORY_MAGIC, fresh, history))
            writes.append((keys[user_id], (stamp, *new, self._history_ttl_s)))
        done = await self._evaluate_all(_WRITE_IF_UNCHANGED, writes)
        return {user_id: counts[user_id] for user_id, ok in zip(events_of, done, strict=True) if ok}

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
            return await call
        except (RedisError, OSError, TimeoutError) as error:
            if not isinstance(error, ResponseError):  # an answer, if only to say that its memory is full
                self._gone_until = time.monotonic() + PAUSE_S
            raise StoreUnavailable(f"Redis: {type(error).__name__}: {error}") from error


def merge(
    history: AnyArray, seen: Hashes, events: Sequence[RecordedEvent], max_history: int, now_ms: int
) -> tuple[AnyArray, Hashes, RecordCount]:
    """Adds events to a history and its seen items.

    An event whose hash is there already counts as a duplicate. The newest max_history positive events stay,
    and as many negative ones; so an event too old to be remembered is dropped again, whatever its hash.
    """
    known = set(history["event"].tolist())
    fresh = []
    for event in events:
        if event.event not in known:
            known.add(event.event)
            fresh.append(event)
    if not fresh:
        return history, seen, RecordCount(0, len(events))
    present = max(now_ms, int(history["time_ms"].max(initial=now_ms)))
    rows = [
        (event.item, present if event.time_ms is None else event.time_ms, event.event, event.positive)
        for event in fresh
    ]
    merged = np.concatenate([history, np.array(rows, _EVENT)])
    merged = merged[np.argsort(merged["time_ms"], kind="stable")]
    keep = np.zeros(len(merged), bool)
    for sign in (merged["positive"], ~merged["positive"]):
        keep[np.flatnonzero(sign)[-max_history:]] = True
    new_items = np.array([event.item for event in fresh], np.uint64)
    # In order of arrival, each once, newest last: what was seen longest ago is cut off first.
    all_seen = np.concatenate([seen, new_items])
    _, last_from_end = np.unique(all_seen[::-1], return_index=True)
    all_seen = all_seen[np.sort(len(all_seen) - 1 - last_from_end)][-MAX_SEEN:]
    return merged[keep], all_seen, RecordCount(len(fresh), len(events) - len(fresh))


def pack_embedding(embedding: CachedEmbedding, stamp: bytes) -> bytes:
    """One user state as one blob: at d = 512 and 32 active neurons 1,168 bytes."""
    z, (neurons, activations) = embedding.state
    width = 4 if len(neurons) and int(neurons.max()) >= _WIDE_FROM else 2
    ignored_count = min(embedding.ignored_count, 0xFFFF)
    header = _EMBEDDING.pack(_EMBEDDING_MAGIC, len(neurons), ignored_count, width, stamp)
    indices = neurons.astype(f"<u{width}")
    return header + z.astype("<f2").tobytes() + indices.tobytes() + activations.astype("<f2").tobytes()


def unpack_embedding(blob: bytes, stamp: bytes) -> CachedEmbedding | None:
    """The user state in a blob; None if it was made from another history, or by another release."""
    magic, m, ignored_count, width, made_from = _EMBEDDING.unpack_from(blob)
    if magic != _EMBEDDING_MAGIC or made_from != stamp:
        return None
    codes = len(blob) - m * (width + 2)
    z = np.frombuffer(blob[_EMBEDDING.size : codes], "<f2").astype(np.float32)
    neurons = np.frombuffer(blob, f"<u{width}", m, codes).astype(np.int64)
    activations = np.frombuffer(blob, "<f2", m, codes + m * width).astype(np.float32)
    return CachedEmbedding(UserState(z, SparseCode(neurons, activations)), ignored_count)


def _pack(magic: bytes, stamp: bytes, records: AnyArray) -> bytes:
    return _HEADER.pack(magic, stamp) + records.tobytes()


def _unpack(blob: bytes, dtype: np.dtype[np.void] | np.dtype[np.uint64]) -> tuple[bytes, AnyArray]:
    magic, stamp = _HEADER.unpack_from(blob)
    if magic not in (_SEEN_MAGIC, _HISTORY_MAGIC):
        raise StoreUnavailable(f"found a blob of format {magic!r} in Redis, which this release does not read")
    return stamp, np.frombuffer(blob, dtype, offset=_HEADER.size)


def _keys(user_id: str, model: str = "") -> tuple[str, str, str]:
    base = f"tt:{{{user_id}}}:"
    return f"{base}s", f"{base}h", f"{base}e:{model}"


def _client(url: str, timeout_s: float) -> Any:  # the stubs cannot tell bytes from str replies
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1),
        protocol=3,
    )

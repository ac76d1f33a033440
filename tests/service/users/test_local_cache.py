"""Users cached in the process, with two workers on one real Valkey."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import redis.asyncio as redis
from prometheus_client import CollectorRegistry

from service.errors import StoreUnavailable
from service.steering.state import SparseCode, UserState
from service.storage.embedded_valkey import embedded_valkey
from service.telemetry.metrics import Metrics
from service.users import local_cache
from service.users.local_cache import UserCache
from service.users.redis_store import SILENCE_S, UserStore
from service.users.state import CachedEmbedding, RecordedEvent

MODEL = "model"


def event(item: int) -> list[RecordedEvent]:
    return [RecordedEvent(item, item, item, True)]


def embedding(value: float, d: int = 8) -> CachedEmbedding:
    code = SparseCode(np.array([1], np.int64), np.array([value], np.float32))
    return CachedEmbedding(UserState(np.full(d, value, np.float32), code), 0)


class Worker:
    """A cache that follows changes, and its metrics."""

    def __init__(self, url: str, max_bytes: int = 10**6) -> None:
        self.store = UserStore(
            url, max_history=100, history_ttl_s=0, embedding_ttl_s=3_600, timeout_s=1.0
        )
        self.metrics = Metrics(CollectorRegistry())
        self.cache = UserCache(self.store, max_bytes, self.metrics)

    def reads(self, result: str) -> float:
        return (
            self.metrics.registry.get_sample_value(
                "trimtab_user_tier_reads_total", {"result": result}
            )
            or 0
        )

    async def until(self, condition: Callable[[], bool], seconds: float = 5.0) -> float:
        started = time.monotonic()
        while not condition():
            assert time.monotonic() < started + seconds, "the condition was not met in time"
            await asyncio.sleep(0.005)
        return time.monotonic() - started

    async def follows(self) -> None:
        """Waits until the cache follows changes."""
        await self.until(lambda: time.monotonic() < self.cache._complete_at + SILENCE_S)

    async def seen(self, user_id: str) -> list[int]:
        return sorted((await self.cache.read(user_id, MODEL)).seen.tolist())


@asynccontextmanager
async def worker(url: str, max_bytes: int = 10**6) -> AsyncIterator[Worker]:
    one = Worker(url, max_bytes)
    try:
        async with one.cache.following():
            await one.follows()
            yield one
    finally:
        await one.store.close()


async def test_a_second_read_does_not_ask_redis(valkey: str) -> None:
    async with worker(valkey) as one, redis.Redis.from_url(valkey) as client:
        await one.cache.record({"anna": event(1)})
        first = await one.cache.read("anna", MODEL)
        await client.flushall()
        assert await one.cache.read("anna", MODEL) is first
        assert (one.reads("hit"), one.reads("miss")) == (1, 1)


async def test_a_workers_own_changes_are_seen_at_once(valkey: str) -> None:
    async with worker(valkey) as one:
        for item in range(1, 20):
            await one.cache.record({"anna": event(item)})
            assert await one.seen("anna") == list(range(1, item + 1))
        assert await one.cache.forget("anna")
        assert await one.seen("anna") == []


async def test_another_workers_changes_are_seen_within_a_second(valkey: str) -> None:
    async with worker(valkey) as one, worker(valkey) as other:
        await one.cache.record({"anna": event(1)})
        for item in range(2, 12):
            before = await other.seen("anna")
            await one.cache.record({"anna": event(item)})
            started = time.monotonic()
            while await other.seen("anna") == before:
                assert time.monotonic() < started + 1.0
                await asyncio.sleep(0)
        await one.cache.forget("anna")
        await other.until(lambda: "anna" not in other.cache._entries, 1.0)


async def test_while_the_other_workers_are_not_heard_every_read_asks_redis(valkey: str) -> None:
    """Cuts the channel's connections, so that a worker's messages never arrive."""
    async with (
        worker(valkey) as one,
        worker(valkey) as other,
        redis.Redis.from_url(valkey) as client,
    ):
        await one.cache.record({"anna": event(1)})
        assert await other.seen("anna") == [1]
        await client.client_kill_filter(_type="pubsub")
        await one.cache.record({"anna": event(2)})
        started = time.monotonic()
        while await other.seen("anna") == [1]:
            assert time.monotonic() < started + SILENCE_S + 0.1
            await asyncio.sleep(0.01)
        hits = other.reads("hit")
        while other.reads("hit") == hits:  # it follows and caches again
            assert time.monotonic() < started + 10
            assert await other.seen("anna") == [1, 2]
            await asyncio.sleep(0.05)


async def test_a_silent_connection_is_not_trusted_for_longer_than_a_second(valkey: str) -> None:
    async with worker(valkey) as one, redis.Redis.from_url(valkey) as client:
        await one.cache.record({"anna": event(1)})
        assert await one.seen("anna") == [1]
        await client.client_pause(1_500)
        await asyncio.sleep(SILENCE_S + 0.1)
        assert await one.seen("anna") == [1]
        assert (one.reads("hit"), one.reads("bypass")) == (0, 1)


async def test_a_read_that_began_before_a_change_is_not_kept(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(valkey) as one:
        await one.cache.record({"anna": event(1)})
        read = one.store.read
        gate = asyncio.Event()
        read_times: asyncio.Queue[float] = asyncio.Queue()

        async def slow(user_id: str, model: str | None) -> object:
            stored = await read(user_id, model)
            read_times.put_nowait(asyncio.get_running_loop().time())
            await gate.wait()
            return stored

        monkeypatch.setattr(one.store, "read", slow)
        early = asyncio.create_task(one.seen("anna"))
        await read_times.get()
        await one.cache.record({"anna": event(2)})
        late = asyncio.create_task(one.seen("anna"))
        await read_times.get()
        gate.set()
        assert (await early, await late) == ([1], [1, 2])
        assert await one.seen("anna") == [1, 2]


async def test_readers_of_one_user_share_one_read_and_one_that_leaves_does_not_end_it(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(valkey) as one:
        await one.cache.record({"anna": event(1)})
        read = one.store.read
        count = 0

        async def counted(user_id: str, model: str | None) -> object:
            nonlocal count
            count += 1
            await asyncio.sleep(0.05)
            return await read(user_id, model)

        monkeypatch.setattr(one.store, "read", counted)
        readers = [asyncio.create_task(one.seen("anna")) for _ in range(20)]
        await asyncio.sleep(0.01)
        readers[0].cancel()
        results = await asyncio.gather(*readers, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == [[1]] * 19
        assert count == 1


async def test_memory_is_bounded_and_the_least_used_go_first(valkey: str) -> None:
    async with worker(valkey, max_bytes=20_000) as one:
        names = [f"user-{number}" for number in range(40)]
        for name in names:
            await one.seen(name)
            await one.seen(names[0])
        assert one.cache.size <= 20_000
        assert one.cache.size == sum(entry.size for entry in one.cache._entries.values())
        assert names[0] in one.cache._entries
        assert names[1] not in one.cache._entries
        assert names[-1] in one.cache._entries
        assert one.metrics.registry.get_sample_value("trimtab_user_tier_bytes") == one.cache.size


async def test_a_cached_embedding_is_kept_if_its_history_still_is_the_same(valkey: str) -> None:
    async with worker(valkey) as one:
        await one.cache.record({"anna": event(1)})
        stamp = (await one.cache.read("anna", MODEL)).stamp
        await one.cache.remember("anna", MODEL, stamp, embedding(1.0))
        stored = await one.cache.read("anna", MODEL)
        assert stored.embedding is not None
        assert stored.embedding.state.z[0] == 1.0
        assert stored.seen.tolist() == [1]
        await one.cache.record({"anna": event(2)})
        await one.cache.read("anna", MODEL)
        await one.cache.remember("anna", MODEL, stamp, embedding(9.0))
        assert (await one.cache.read("anna", MODEL)).embedding is None


async def test_what_expires_in_redis_ends_here_too(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_cache, "MAX_AGE_S", 0.2)
    async with worker(valkey) as one, redis.Redis.from_url(valkey) as client:
        await one.cache.record({"anna": event(1)})
        assert await one.seen("anna") == [1]
        await client.flushall()
        await asyncio.sleep(0.25)
        assert await one.seen("anna") == []


async def test_while_redis_is_gone_users_that_are_kept_are_as_they_were(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(embedded_valkey(tmp_path / "other"))
        async with worker(url) as one:
            await one.cache.record({"anna": event(1)})
            assert await one.seen("anna") == [1]
            await stack.aclose()
            await one.until(lambda: time.monotonic() > one.cache._complete_at + SILENCE_S)
            stored = await one.cache.read("anna", MODEL)
            assert stored.is_stale
            assert stored.seen.tolist() == [1]
            for user_id, model in (("boris", MODEL), ("anna", "another model")):
                with pytest.raises(StoreUnavailable):
                    await one.cache.read(user_id, model)


async def test_without_room_every_read_asks_redis(valkey: str) -> None:
    async with worker(valkey, max_bytes=0) as one:
        await one.cache.record({"anna": event(1)})
        await one.seen("anna")
        await one.store.record({"anna": event(2)})
        assert await one.seen("anna") == [1, 2]
        assert one.cache.size == 0

"""Users in a real Valkey."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis.asyncio as redis
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.bundle.catalogue import item_hash
from service.bundle.precision import LARGEST, Precision
from service.errors import StoreUnavailable
from service.steering.state import SparseCode, UserState
from service.storage.embedded_valkey import embedded_valkey
from service.users.codec import merge, pack_embedding, unpack_embedding
from service.users.redis_store import UserStore
from service.users.state import NO_EVENTS, CachedEmbedding, RecordedEvent

STAMP = b"12345678"
FLOAT16 = Precision.FLOAT16
NOW_MS = 1_700_000_000_000


@asynccontextmanager
async def store_at(url: str) -> AsyncIterator[UserStore]:
    store = UserStore(url, max_history=100, history_ttl_s=0, embedding_ttl_s=3_600, timeout_s=1.0)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(valkey: str) -> AsyncIterator[UserStore]:
    async with store_at(valkey) as opened:
        yield opened


@pytest.fixture
async def client(valkey: str) -> AsyncIterator[redis.Redis]:
    async with redis.Redis.from_url(valkey) as opened:
        yield opened


def events(*items: int, positive: bool = True, start: int = 0) -> list[RecordedEvent]:
    return [RecordedEvent(item, start + item, 1_000 + item, positive) for item in items]


def embedding(
    d: int = 512,
    k: int = 32,
    n_neurons: int = 8_192,
    seed: int = 0,
    context_size: int = 0,
    precision: Precision = FLOAT16,
) -> CachedEmbedding:
    rng = np.random.default_rng(seed)
    z = precision.rounded(rng.normal(size=d).astype(np.float32))
    neurons = np.sort(rng.choice(n_neurons, k, replace=False))
    activations = precision.rounded(rng.random(k).astype(np.float32))
    context = precision.rounded(rng.normal(size=context_size).astype(np.float32))
    return CachedEmbedding(UserState(z, SparseCode(neurons, activations), context), 3)


@given(
    d=st.integers(1, 600),
    k=st.integers(0, 64),
    n_neurons=st.sampled_from([64, 65_536, 200_000]),
    seed=st.integers(0, 9),
    context_size=st.sampled_from([0, 1, 70_000]),
    precision=st.sampled_from(Precision),
)
def test_a_packed_embedding_comes_back_bit_for_bit(
    d: int, k: int, n_neurons: int, seed: int, context_size: int, precision: Precision
) -> None:
    packed = embedding(d, k, n_neurons, seed, context_size, precision)
    unpacked = unpack_embedding(pack_embedding(packed, STAMP, precision), STAMP, precision)
    assert unpacked is not None
    assert np.array_equal(unpacked.state.z, packed.state.z)
    assert np.array_equal(unpacked.state.context, packed.state.context)
    assert np.array_equal(unpacked.state.code.neurons, packed.state.code.neurons)
    assert np.array_equal(unpacked.state.code.activations, packed.state.code.activations)
    assert unpacked.ignored_count == 3


def test_an_embedding_of_another_history_does_not_count() -> None:
    blob = pack_embedding(embedding(), STAMP, FLOAT16)
    assert unpack_embedding(blob, b"87654321", FLOAT16) is None


def test_an_embedding_of_another_precision_does_not_count() -> None:
    blob = pack_embedding(embedding(), STAMP, FLOAT16)
    assert unpack_embedding(blob, STAMP, Precision.INT8) is None
    blob = pack_embedding(embedding(precision=Precision.INT8), STAMP, Precision.INT8)
    assert unpack_embedding(blob, STAMP, FLOAT16) is None


@pytest.mark.parametrize("precision", Precision)
def test_vectors_too_small_for_a_scale_are_kept_as_zeros_and_not_as_nonsense(
    precision: Precision,
) -> None:
    tiny = np.array([1e-44, -1e-40, 0.0], np.float32)
    rounded = precision.rounded(tiny)
    assert not rounded.any()
    assert not precision.unpack(precision.pack(rounded), 3).any()


def test_int8_takes_little_more_than_half_of_float16() -> None:
    sizes = [
        len(pack_embedding(embedding(512, 32, 4_096, precision=one), STAMP, one))
        for one in Precision
    ]
    assert sizes == [1_173, 641]


@given(
    values=arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(0, 9)),
        elements=st.floats(width=32, allow_nan=False),
    ),
    precision=st.sampled_from(Precision),
)
def test_rounding_twice_is_rounding_once_and_near(values: Any, precision: Precision) -> None:
    rounded = precision.rounded(values)
    assert np.array_equal(precision.rounded(rounded), rounded)
    for row, kept in zip(values, rounded, strict=True):
        assert np.array_equal(precision.unpack(precision.pack(kept), len(kept)), kept)
        bounded = np.clip(row, -LARGEST, LARGEST)
        assert (np.abs(bounded - kept) <= np.abs(bounded).max(initial=0.0) / 250 + 1e-7).all()


@given(st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=6), st.integers(1, 10))
def test_merging_keeps_the_newest_events_in_time_order_and_each_item_seen_once(
    batches: list[list[int]], max_history: int
) -> None:
    history = NO_EVENTS
    seen = np.empty(0, np.uint64)
    accepted = 0
    for batch in batches:
        history, seen, count = merge(history, seen, events(*batch), max_history, NOW_MS)
        assert count.accepted + count.duplicates == len(batch)
        accepted += count.accepted
    all_items = sorted({item for batch in batches for item in batch})
    assert history["item"].tolist() == all_items[-max_history:]
    assert sorted(seen.tolist()) == all_items
    assert accepted >= len(all_items)


def test_negative_events_do_not_push_positive_ones_out() -> None:
    history, seen, _ = merge(NO_EVENTS, np.empty(0, np.uint64), events(1, 2, 3), 3, NOW_MS)
    history, seen, _ = merge(history, seen, events(11, 12, 13, 14, positive=False), 3, NOW_MS)
    assert history["item"].tolist() == [1, 2, 3, 12, 13, 14]
    assert sorted(seen.tolist()) == [1, 2, 3, 11, 12, 13, 14]


def test_events_without_a_time_stay_in_order_when_the_clock_jumps_back() -> None:
    timeless = [RecordedEvent(item, None, item, True) for item in (1, 2, 3)]
    history, seen, _ = merge(NO_EVENTS, np.empty(0, np.uint64), timeless[:1], 2, NOW_MS)
    history, seen, _ = merge(history, seen, timeless[1:2], 2, NOW_MS - 3_600_000)
    history, seen, _ = merge(history, seen, timeless[2:], 2, NOW_MS - 7_200_000)
    assert history["item"].tolist() == [2, 3]
    assert history["time_ms"].tolist() == [NOW_MS, NOW_MS]


async def test_recording_the_same_event_twice_counts_once(store: UserStore) -> None:
    assert await store.record({"u": events(1, 2)}) == (2, 0)
    assert await store.record({"u": events(2, 3)}) == (1, 1)
    stored = await store.read("u", "model")
    assert stored.events["item"].tolist() == [1, 2, 3]
    assert sorted(stored.seen.tolist()) == [1, 2, 3]


async def test_writers_of_one_user_lose_no_event(valkey: str) -> None:
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(store_at(valkey)) for _ in range(4)]
        await asyncio.gather(
            *(
                store.record({"u": events(worker * 10 + turn)})
                for turn in range(5)
                for worker, store in enumerate(stores)
            )
        )
        stored = await stores[0].read("u", None)
        assert len(stored.events) == len(stored.seen) == 20


async def test_a_cached_embedding_counts_until_the_history_changes(store: UserStore) -> None:
    await store.record({"u": events(1)})
    before = await store.read("u", "model")
    assert before.embedding is None
    await store.remember("u", "model", before.stamp, embedding())
    cached = await store.read("u", "model")
    assert cached.embedding is not None
    assert np.array_equal(cached.embedding.state.z, embedding().state.z)
    assert (await store.read("u", "other model")).embedding is None
    await store.record({"u": events(2)})
    assert (await store.read("u", "model")).embedding is None


async def test_an_embedding_made_from_an_older_history_is_not_cached(store: UserStore) -> None:
    await store.record({"u": events(1)})
    old = await store.read("u", "model")
    await store.record({"u": events(2)})
    await store.remember("u", "model", old.stamp, embedding())
    assert (await store.read("u", "model")).embedding is None


async def test_forgetting_a_user_leaves_no_key_even_if_an_embedding_arrives_late(
    store: UserStore, client: redis.Redis
) -> None:
    for model in ("first", "second"):
        await store.register_model(model)
    await store.record({"u*[x]": events(1), "v": events(1)})
    stamp = (await store.read("u*[x]", "first")).stamp
    for model in ("first", "second"):
        await store.remember("u*[x]", model, stamp, embedding())
    assert await store.forget("u*[x]")
    await store.remember("u*[x]", "first", stamp, embedding())
    left = [key async for key in client.scan_iter()]
    assert sorted(left) == [b"tt:models", b"tt:{v}:h", b"tt:{v}:s"]
    assert not await store.forget("u*[x]")


async def test_a_cached_embedding_of_512_dimensions_takes_at_most_1500_bytes(
    store: UserStore, client: redis.Redis
) -> None:
    user = "user-1234567890"
    await store.record({user: events(1)})
    await store.remember(user, "0123456789ab", (await store.read(user, None)).stamp, embedding())
    key = f"tt:{{{user}}}:e:0123456789ab"
    assert 0 < await client.ttl(key) <= 3_600
    size = await client.memory_usage(key)
    assert size is not None
    assert size <= 1_500


async def test_what_was_acknowledged_is_there_after_the_store_restarts(tmp_path: Path) -> None:
    async with embedded_valkey(tmp_path / "data") as url, store_at(url) as store:
        assert await store.persistence()
        await store.record({"u": events(1, 2)})
    async with embedded_valkey(tmp_path / "data") as url, store_at(url) as store:
        assert (await store.read("u", None)).events["item"].tolist() == [1, 2]


async def test_a_store_that_is_gone_is_said_to_be_gone_at_once(tmp_path: Path) -> None:
    async with store_at(f"unix://{tmp_path}/nothing.sock") as store:
        with pytest.raises(StoreUnavailable, match="Redis"):
            await store.read("u", None)
        with pytest.raises(StoreUnavailable, match="a moment ago"):
            await store.read("u", None)


async def test_a_user_written_by_another_release_is_not_misread(
    store: UserStore, client: redis.Redis
) -> None:
    await store.record({"u": events(1)})
    await client.set("tt:{u}:s", b"tt-seen9" + bytes(24))
    with pytest.raises(StoreUnavailable, match="tt-seen9"):
        await store.read("u", None)
    with pytest.raises(StoreUnavailable, match="tt-seen9"):
        await store.record({"u": events(2)})


def test_item_hashes_do_not_depend_on_the_process() -> None:
    assert item_hash("item-17") == 14740904390717064643
    assert item_hash("été") != item_hash("ete")

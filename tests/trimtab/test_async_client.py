"""Tests the asynchronous client: methods, requests and errors are those of the synchronous one."""

import asyncio
import inspect
from collections import defaultdict
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from trimtab import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    FieldViolation,
    Internal,
    InvalidArgument,
    Unavailable,
    recommend_request,
)

from tests.support.fake_server import FakeServer, Fault, fault, invalid


def _methods(kind: type) -> dict[str, inspect.Signature]:
    names = [
        name
        for name in dir(kind)
        if not name.startswith("_") and inspect.isfunction(getattr(kind, name))
    ]
    return {name: inspect.signature(getattr(kind, name)) for name in names}


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    sync = _methods(Client)
    asynchronous = _methods(AsyncClient)
    assert {name: list(s.parameters.values()) for name, s in sync.items()} == {
        name: list(s.parameters.values()) for name, s in asynchronous.items()
    }
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


async def test_both_clients_send_the_same_requests(fake: FakeServer) -> None:
    arguments: dict[str, Any] = {
        "n": 3,
        "steer": {"Film-Noir": 1},
        "filter": {"genres": "Drama"},
        "explain": True,
    }
    async with AsyncClient(fake.target) as client:
        reply = await client.recommend(42, **arguments)
        await client.similar_items(50, n=3, steer="#1=+1")
        await client.forget_user(42)
        await client.search_concepts("noir", n=5)
        await client.get_neuron(7)
        await client.inspect_user(42, history=[1])
        await client.contrast([1], [2, 3], items=True)
        await client.list_bundles()
        concepts = [concept.name async for concept in client.list_concepts(page_size=2)]
        batch = await client.batch_recommend(recommend_request(i) for i in range(300))
    sent = fake.requests[:]
    fake.requests.clear()

    def sync() -> None:
        with Client(fake.target) as twin:
            assert twin.recommend(42, **arguments) == reply
            twin.similar_items(50, n=3, steer="#1=+1")
            twin.forget_user(42)
            twin.search_concepts("noir", n=5)
            twin.get_neuron(7)
            twin.inspect_user(42, history=[1])
            twin.contrast([1], [2, 3], items=True)
            twin.list_bundles()
            assert [concept.name for concept in twin.list_concepts(page_size=2)] == concepts
            assert twin.batch_recommend(recommend_request(i) for i in range(300)) == batch

    await asyncio.to_thread(sync)
    assert sent == fake.requests
    assert len(sent) == 13


async def test_an_invalid_request_names_the_invalid_field(fake: FakeServer) -> None:
    fake.faults = [invalid(("n", "found 0, expected 1 to 1000"), request_id="r-9")]
    async with AsyncClient(fake.target) as client:
        with pytest.raises(InvalidArgument, match="n: found 0, expected 1 to 1000") as caught:
            await client.recommend(42, n=0)
    assert caught.value.violations == (FieldViolation("n", "found 0, expected 1 to 1000"),)
    assert caught.value.request_id == "r-9"


async def test_only_unavailable_is_tried_again(fake: FakeServer) -> None:
    async with AsyncClient(fake.target) as client:
        fake.faults = [fault(grpc.StatusCode.UNAVAILABLE)] * 2
        await client.recommend(42)
        assert len(fake.requests) == 3
        fake.faults = [fault(grpc.StatusCode.INTERNAL)]
        with pytest.raises(Internal):
            await client.recommend(42)
        assert len(fake.requests) == 4
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 is unavailable"):
            await client.recommend(42)


def until(release: asyncio.Event) -> Fault:
    """Returns a fault that blocks a call in the server's thread until the event is set."""
    loop = asyncio.get_running_loop()

    def wait(_: grpc.ServicerContext) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(5)

    return wait


async def test_a_call_ends_at_its_deadline_and_the_error_names_it(fake: FakeServer) -> None:
    release = asyncio.Event()
    fake.faults = [until(release)]
    async with AsyncClient(fake.target, timeout=0.2) as client:
        with pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
            await client.recommend(42)
    release.set()


async def test_calls_at_the_same_time_are_spread_over_the_connections(fake: FakeServer) -> None:
    async with AsyncClient(fake.target, channels=3, token="secret") as client:
        await asyncio.gather(*(client.recommend(i) for i in range(12)))
    assert sorted(fake.peers.count(peer) for peer in set(fake.peers)) == [4, 4, 4]
    assert {metadata["authorization"] for metadata in fake.metadata} == {"Bearer secret"}


async def test_recording_sends_every_event_once_in_each_users_order(fake: FakeServer) -> None:
    seen: list[int] = []
    async with AsyncClient(fake.target) as client:
        totals = await client.record(
            ((i % 7, i) for i in range(2000)),
            call_events=100,
            progress=lambda t: seen.append(t.sent_count),
        )
    items = defaultdict(list)
    for request in fake.requests:
        assert len(request.interactions) <= 100
        for message in request.interactions:
            items[message.user_id].append(int(message.event.item_id))
    assert items == {str(user): list(range(user, 2000, 7)) for user in range(7)}
    assert (totals.sent_count, totals.call_count, seen[-1]) == (2000, len(fake.requests), 2000)


async def test_a_failed_recording_raises_the_error_and_says_how_many_events_were_recorded(
    fake: FakeServer,
) -> None:
    fake.faults = [lambda _: None, fault(grpc.StatusCode.INTERNAL, "disk full")]
    async with AsyncClient(fake.target) as client:
        with pytest.raises(Internal, match="disk full") as caught:
            await client.record(((i, i) for i in range(1000)), call_events=100, calls_in_flight=1)
    assert caught.value.__notes__ == ["100 interactions were recorded before this"]
    assert len(fake.requests) == 2


async def test_a_cancelled_call_raises_cancelled_error(fake: FakeServer) -> None:
    release = asyncio.Event()
    fake.faults = [until(release)]
    async with AsyncClient(fake.target) as client:
        call = asyncio.create_task(client.recommend(42))
        while not fake.requests:  # noqa: ASYNC110 - the server is in another thread
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    release.set()


async def test_health_and_status_are_those_that_the_server_reports(fake: FakeServer) -> None:
    async with AsyncClient(fake.target) as client:
        assert await client.health("trimtab.v1.BundleService") == "NOT_SERVING"
        status = await client.status()
    assert status.serving
    assert status.services["trimtab.v1.PolicyService"] == "SERVICE_UNKNOWN"
    assert status.bundles[0].labels == ["stable"]


async def test_a_server_that_starts_late_is_waited_for(fake: FakeServer) -> None:
    fake.checks.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    async with AsyncClient(fake.target) as client:
        assert not await client.wait_until_serving(0.3)
        waiting = asyncio.create_task(client.wait_until_serving(10))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        fake.checks.set("", health_pb2.HealthCheckResponse.SERVING)
        assert await waiting


async def test_a_client_that_was_never_used_closes(fake: FakeServer) -> None:
    async with AsyncClient(fake.target):
        pass
    assert fake.requests == []

"""Tests start, faults and stop with the real program, real signals and a real Valkey."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import redis.asyncio as redis
from grpc_health.v1 import health_pb2, health_pb2_grpc
from trimtab import Client
from trimtab.v1 import concept_pb2, concept_pb2_grpc, recommendation_pb2_grpc
from trimtab.v1 import recommendation_pb2 as pb

from service.bundle.bundle import BundleError
from service.storage.embedded_valkey import DataDirectoryError
from service.users.redis_store import SILENCE_S
from tests.support.servers import FindPort, StartServer

Program = Callable[..., AbstractContextManager["subprocess.Popen[str]"]]


def connect(port: int) -> grpc.Channel:
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    grpc.channel_ready_future(channel).result(timeout=30)
    return channel


def record(stub: Any, user_id: str, *item_ids: str) -> None:
    stub.RecordInteractions(
        pb.RecordInteractionsRequest(
            interactions=[
                pb.Interaction(user_id=user_id, event=pb.Event(item_id=i)) for i in item_ids
            ]
        )
    )


def test_a_client_can_wait_for_a_server_that_is_starting_and_gives_up_on_none(
    program: Program, bundle_dir: Path, tmp_path: Path, free_port: FindPort
) -> None:
    port = free_port()
    with Client(f"127.0.0.1:{port}") as client:
        assert not client.wait_until_serving(0.5)
        with program(bundle_dir, tmp_path, port):
            assert client.wait_until_serving(30)
            assert client.recommend(user_id="u", n=1).items


def test_sigterm_drains_and_a_restart_keeps_the_histories(
    program: Program, bundle_dir: Path, tmp_path: Path, free_port: FindPort
) -> None:
    port = free_port()
    with program(bundle_dir, tmp_path, port) as process, connect(port) as channel:
        record(recommendation_pb2_grpc.RecommendationServiceStub(channel), "u", "item-3")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 0
    with program(bundle_dir, tmp_path, port) as process, connect(port) as channel:
        stub = recommendation_pb2_grpc.RecommendationServiceStub(channel)
        assert (
            stub.Recommend(pb.RecommendRequest(user_id="u", n=1)).served_by.source
            == pb.SOURCE_PERSONAL
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == 0


def test_killed_without_warning_it_leaves_no_process_and_no_acknowledged_event_is_lost(
    program: Program, bundle_dir: Path, tmp_path: Path, free_port: FindPort
) -> None:
    port = free_port()
    with program(bundle_dir, tmp_path, port) as process, connect(port) as channel:
        record(recommendation_pb2_grpc.RecommendationServiceStub(channel), "u", "item-3")
        children = psutil.Process(process.pid).children()
        assert [child.name() for child in children] == ["valkey-server"]
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
    with program(bundle_dir, tmp_path, port), connect(port) as channel:
        stub = recommendation_pb2_grpc.RecommendationServiceStub(channel)
        assert (
            stub.Recommend(pb.RecommendRequest(user_id="u", n=1)).served_by.source
            == pb.SOURCE_PERSONAL
        )


def test_a_second_server_on_one_data_directory_is_refused_by_name(
    start_server: StartServer, bundle_dir: Path, tmp_path: Path
) -> None:
    with (
        start_server(bundle_dir, tmp_path),
        pytest.raises(
            DataDirectoryError, match=rf"in use by another server \(process {os.getpid()}\)"
        ),
        start_server(bundle_dir, tmp_path),
    ):
        pass
    with start_server(bundle_dir, tmp_path):
        pass


def test_the_program_says_what_is_wrong_with_a_bundle_and_a_flag(
    program: Program, tmp_path: Path, free_port: FindPort
) -> None:
    with program(tmp_path / "nowhere", tmp_path, free_port()) as process:
        _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "no readable manifest.json" in error
    assert "Traceback" not in error
    with program(tmp_path, tmp_path, free_port(), "--workers", "0") as process:
        _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "workers" in error


def test_a_port_that_is_taken_is_named(
    program: Program, start_server: StartServer, bundle_dir: Path, tmp_path: Path
) -> None:
    with start_server(bundle_dir, tmp_path / "first") as first:
        with program(bundle_dir, tmp_path / "second", first.running.port) as process:
            _, error = process.communicate(timeout=30)
        assert process.returncode == 1
        assert str(first.running.port) in error
        assert "Traceback" not in error


def test_nothing_is_served_from_a_bundle_that_is_refused(
    start_server: StartServer, tmp_path: Path
) -> None:
    with pytest.raises(BundleError), start_server(tmp_path, tmp_path / "data"):
        pass


def test_without_redis_lists_are_marked_as_degraded_and_recording_is_refused(
    start_server: StartServer, bundle_dir: Path, tmp_path: Path
) -> None:
    url = f"unix://{tmp_path}/nothing.sock"
    with start_server(bundle_dir, tmp_path, "--redis", url) as served:
        stub = recommendation_pb2_grpc.RecommendationServiceStub(served.channel)
        response = stub.Recommend(pb.RecommendRequest(user_id="u", n=5))
        assert response.served_by.source == pb.SOURCE_POPULAR
        assert list(response.served_by.degradations) == [pb.DEGRADATION_NO_STORE]
        given = stub.Recommend(
            pb.RecommendRequest(
                user_id="u", n=5, history=pb.History(events=[pb.Event(item_id="item-3")])
            )
        )
        assert given.served_by.source == pb.SOURCE_PERSONAL
        with pytest.raises(grpc.RpcError) as failure:
            record(stub, "u", "item-3")
        assert failure.value.code() == grpc.StatusCode.UNAVAILABLE
        health = health_pb2_grpc.HealthStub(served.channel)
        assert (
            health.Check(health_pb2.HealthCheckRequest()).status
            == health_pb2.HealthCheckResponse.SERVING
        )


def test_without_redis_items_can_be_contrasted_and_users_cannot(
    start_server: StartServer, bundle_dir: Path, tmp_path: Path
) -> None:
    sets = [concept_pb2.ContrastSet(item_ids=[item_id]) for item_id in ("item-3", "item-17")]
    with start_server(bundle_dir, tmp_path, "--redis", f"unix://{tmp_path}/nothing.sock") as served:
        stub = concept_pb2_grpc.ConceptServiceStub(served.channel)
        assert stub.Contrast(concept_pb2.ContrastRequest(left=sets[0], right=sets[1])).neurons
        users = concept_pb2.ContrastSet(user_ids=["u"])
        with pytest.raises(grpc.RpcError) as failure:
            stub.Contrast(concept_pb2.ContrastRequest(left=users, right=sets[1]))
        assert failure.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_full_redis_refuses_recording_and_lists_are_still_answered(
    start_server: StartServer, bundle_dir: Path, tmp_path: Path, valkey: str
) -> None:
    async with redis.Redis.from_url(valkey) as client:
        with start_server(bundle_dir, tmp_path, "--redis", valkey) as served:
            stub = recommendation_pb2_grpc.RecommendationServiceStub(served.channel)
            record(stub, "u", "item-3")
            await client.config_set("maxmemory-policy", "noeviction")
            await client.config_set("maxmemory", 1)
            with pytest.raises(grpc.RpcError) as failure:
                record(stub, "u", "item-17")
            assert failure.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "OutOfMemory" in (failure.value.details() or "")
            response = stub.Recommend(pb.RecommendRequest(user_id="u", n=5))
            assert response.served_by.source == pb.SOURCE_PERSONAL
            assert not response.served_by.degradations
            await client.config_set("maxmemory", 0)
            record(stub, "u", "item-17")


def test_lists_are_answered_after_redis_is_killed(
    start_server: StartServer, bundle_dir: Path, tmp_path: Path
) -> None:
    with start_server(bundle_dir, tmp_path) as served:
        stub = recommendation_pb2_grpc.RecommendationServiceStub(served.channel)
        record(stub, "u", "item-3")
        (valkey,) = [child for child in psutil.Process().children() if _serves(child, tmp_path)]
        valkey.kill()
        for _ in range(3):
            response = stub.Recommend(pb.RecommendRequest(user_id="u", n=5))
            assert list(response.served_by.degradations) == [pb.DEGRADATION_NO_STORE]
            assert response.items


async def test_a_restart_with_an_external_redis_keeps_the_histories(
    start_server: StartServer, bundle_dir: Path, tmp_path: Path, valkey: str
) -> None:
    for turn in range(2):
        with start_server(bundle_dir, tmp_path, "--redis", valkey) as served:
            stub = recommendation_pb2_grpc.RecommendationServiceStub(served.channel)
            if turn == 0:
                record(stub, "u", "item-3")
            response = stub.Recommend(pb.RecommendRequest(user_id="u", n=1))
            assert response.served_by.source == pb.SOURCE_PERSONAL


def test_a_request_past_its_deadline_is_not_computed(
    start_server: StartServer, bundle_dir: Path, tmp_path: Path
) -> None:
    with start_server(bundle_dir, tmp_path, "--store-timeout-s", "1") as served:
        stub = recommendation_pb2_grpc.RecommendationServiceStub(served.channel)
        record(stub, "u", "item-3")
        (valkey,) = [child for child in psutil.Process().children() if _serves(child, tmp_path)]
        valkey.suspend()
        try:
            with pytest.raises(grpc.RpcError) as failure:
                stub.Recommend(pb.RecommendRequest(user_id="u", n=5), timeout=0.2)
            assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            time.sleep(1.5)  # the store's timeout passes, and the request would be computed now
        finally:
            valkey.resume()
        lists = served.running.metrics.registry.get_sample_value(
            "trimtab_lists_total", {"source": "popular"}
        )
        assert not lists
        assert served.running.metrics.registry.get_sample_value("trimtab_in_flight") == 0


def test_lists_are_answered_while_redis_hangs_and_use_it_again_afterwards(
    start_server: StartServer, bundle_dir: Path, tmp_path: Path
) -> None:
    with start_server(bundle_dir, tmp_path) as served:
        stub = recommendation_pb2_grpc.RecommendationServiceStub(served.channel)
        record(stub, "u", "item-3")
        record(stub, "known", "item-3")
        request = pb.RecommendRequest(user_id="u", n=5)
        known = pb.RecommendRequest(user_id="known", n=5)
        before = stub.Recommend(known)
        (valkey,) = [child for child in psutil.Process().children() if _serves(child, tmp_path)]
        valkey.suspend()
        try:
            slowest = 0.0
            for _ in range(5):
                start = time.perf_counter()
                response = stub.Recommend(request)
                slowest = max(slowest, time.perf_counter() - start)
                assert list(response.served_by.degradations) == [pb.DEGRADATION_NO_STORE]
            assert slowest < 5.0, "a hanging store must not hold requests"
            time.sleep(SILENCE_S)
            after = stub.Recommend(known)
            assert list(after.served_by.degradations) == [pb.DEGRADATION_NO_STORE]
            assert after.served_by.source == pb.SOURCE_PERSONAL
            assert after.items == before.items
        finally:
            valkey.resume()
        for _ in range(50):
            response = stub.Recommend(request)
            if response.served_by.source == pb.SOURCE_PERSONAL:
                break
            time.sleep(0.1)
        assert response.served_by.source == pb.SOURCE_PERSONAL


def test_when_no_permit_is_left_calls_are_refused_at_once_low_priority_first(
    start_server: StartServer, bundle_dir: Path, tmp_path: Path
) -> None:
    with start_server(
        bundle_dir, tmp_path, "--max-in-flight", "2", "--store-timeout-s", "3"
    ) as served:
        stub = recommendation_pb2_grpc.RecommendationServiceStub(served.channel)
        stub.Recommend(pb.RecommendRequest(user_id="u", n=1))
        (valkey,) = [child for child in psutil.Process().children() if _serves(child, tmp_path)]
        valkey.suspend()
        try:
            waiting = stub.Recommend.future(pb.RecommendRequest(user_id="w", n=1))
            time.sleep(0.3)
            start = time.perf_counter()
            with pytest.raises(grpc.RpcError) as failure:
                stub.Recommend(pb.RecommendRequest(user_id="v", n=1, priority=pb.PRIORITY_LOW))
            assert failure.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert time.perf_counter() - start < 1.0
        finally:
            valkey.resume()
        assert waiting.result(timeout=10).items


def _serves(child: psutil.Process, data_dir: Path) -> bool:
    return child.name() == "valkey-server" and child.cwd().startswith(str(data_dir))

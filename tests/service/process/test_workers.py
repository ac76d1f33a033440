"""Tests several workers behind one port with real processes, signals and a real Valkey."""

import signal
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import grpc
import psutil
import pytest
from prometheus_client import CollectorRegistry, Info
from prometheus_client.parser import text_string_to_metric_families
from trimtab import Client
from trimtab.v1 import recommendation_pb2 as pb
from trimtab.v1.concept_pb2 import Label, LabelRecord
from trimtab.v1.recommendation_pb2_grpc import RecommendationServiceStub

from service.telemetry.exposition import merged
from service.telemetry.metrics import Metrics
from tests.support.servers import FindPort

Program = Callable[..., AbstractContextManager["subprocess.Popen[str]"]]
MANY = 12
"""Connections, spread over two workers; all reach the same one in 1 of 2,048 runs."""


class Workers:
    """Two workers that serve, and channels to them, each with its own connection."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, metrics_port: int) -> None:
        self.process = process
        self.target = f"127.0.0.1:{port}"
        self._metrics_port = metrics_port

    @property
    def pids(self) -> list[int]:
        children = psutil.Process(self.process.pid).children()
        return [child.pid for child in children if "service.process.worker" in child.cmdline()]

    def samples(self) -> dict[tuple[str, ...], float]:
        """Returns the metrics by name and label values, in the order of the labels' names."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=5
        ) as page:
            families = list(text_string_to_metric_families(page.read().decode()))
        samples = [sample for family in families for sample in family.samples]
        return {
            (sample.name, *dict(sorted(sample.labels.items())).values()): sample.value
            for sample in samples
        }

    def wait(self, name: str, value: float) -> None:
        """Waits until a metric has this value."""
        for _ in range(200):
            try:
                if self.samples().get((name,)) == value:
                    return
            except OSError:  # it only begins
                pass
            time.sleep(0.1)
        pytest.fail(f"{name} is {self.samples().get((name,))}, expected {value}")

    @contextmanager
    def stubs(self) -> Iterator[list[RecommendationServiceStub]]:
        with ExitStack() as stack:
            own = [("grpc.use_local_subchannel_pool", 1)]
            channels = [grpc.insecure_channel(self.target, options=own) for _ in range(MANY)]
            for channel in channels:
                stack.enter_context(channel)
                grpc.channel_ready_future(channel).result(timeout=20)
            yield [RecommendationServiceStub(channel) for channel in channels]


@contextmanager
def two_workers(
    program: Program, bundle_dir: Path, data_dir: Path, port: int, metrics_port: int
) -> Iterator[Workers]:
    flags = ("--workers", "2", "--drain-s", "3", "--metrics-port", str(metrics_port))
    with program(bundle_dir, data_dir, port, *flags) as process:
        running = Workers(process, port, metrics_port)
        running.wait("trimtab_workers", 2)
        yield running
        process.terminate()
        process.wait(15)


@pytest.fixture
def workers(
    program: Program, bundle_dir: Path, tmp_path: Path, free_port: FindPort
) -> Iterator[Workers]:
    """Workers for one test."""
    with two_workers(program, bundle_dir, tmp_path, free_port(), free_port()) as running:
        yield running


@pytest.fixture(scope="module")
def shared(
    program: Program,
    bundle_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
    free_port: FindPort,
) -> Iterator[Workers]:
    """Workers shared by the tests that leave them unchanged and use their own user ids."""
    data_dir = tmp_path_factory.mktemp("workers")
    with two_workers(program, bundle_dir, data_dir, free_port(), free_port()) as running:
        yield running


def within_a_second(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 1.0
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.05)
    return held


def test_each_worker_answers_and_the_metrics_are_the_sum_of_both(shared: Workers) -> None:
    before = shared.samples()
    with shared.stubs() as stubs:
        for stub in stubs:
            stub.Recommend(pb.RecommendRequest(user_id="u", n=1))
        connections = [len(psutil.Process(pid).net_connections("tcp")) for pid in shared.pids]
        assert all(count > 1 for count in connections), "each listens and has connections"
        samples = shared.samples()
    for name in (
        ("trimtab_lists_total", "popular"),
        ("trimtab_request_seconds_count", "OK", "Recommend"),
    ):
        assert samples[name] - before.get(name, 0.0) == MANY
    assert samples["trimtab_in_flight",] == 0
    assert [value for (name, *_), value in samples.items() if name == "trimtab_bundle_info"] == [
        1.0
    ]


def test_what_is_recorded_and_imported_through_one_worker_is_known_to_all_within_a_second(
    shared: Workers,
) -> None:
    with shared.stubs() as stubs, Client(shared.target) as client:
        asked = pb.RecommendRequest(user_id="recorded", n=5)
        before = {
            stub.Recommend(asked).served_by.source for stub in stubs
        }  # every worker keeps the user now
        assert before == {pb.SOURCE_POPULAR}
        event = pb.Event(item_id="item-3")
        interactions = [pb.Interaction(user_id="recorded", event=event)]
        stubs[0].RecordInteractions(pb.RecordInteractionsRequest(interactions=interactions))
        assert stubs[0].Recommend(asked).served_by.source == pb.SOURCE_PERSONAL
        assert within_a_second(
            lambda: (
                {stub.Recommend(asked).served_by.source for stub in stubs} == {pb.SOURCE_PERSONAL}
            )
        )
        label = Label(text="of our own", method="by hand")
        records = [*client.export_labels(), LabelRecord(neuron=3, label=label)]
        version = client.import_labels(records).label_set
        assert within_a_second(
            lambda: {stub.Recommend(asked).served_by.label_set for stub in stubs} == {version}
        )


def test_a_worker_that_is_killed_under_load_is_replaced_and_calls_to_the_other_are_all_answered(
    workers: Workers,
) -> None:
    victim, other = workers.pids
    stop = threading.Event()
    codes = [Counter[grpc.StatusCode]() for _ in range(MANY)]

    def load(stub: RecommendationServiceStub, seen: Counter[grpc.StatusCode]) -> None:
        while not stop.is_set():
            try:
                stub.Recommend(pb.RecommendRequest(user_id="u", n=5))
                seen[grpc.StatusCode.OK] += 1
            except grpc.RpcError as error:
                seen[error.code()] += 1

    with workers.stubs() as stubs:
        on_victim = (
            len(psutil.Process(victim).net_connections("tcp")) - 1
        )  # but for where it listens
        threads = [
            threading.Thread(target=load, args=pair) for pair in zip(stubs, codes, strict=True)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        counted = workers.samples()["trimtab_lists_total", "popular"]
        psutil.Process(victim).kill()
        workers.wait("trimtab_worker_restarts_total", 1)
        workers.wait("trimtab_workers", 2)
        stop.set()
        for thread in threads:
            thread.join()
    assert sum(len(seen) > 1 for seen in codes) <= on_victim, "calls to the other worker failed"
    assert {code for seen in codes for code in seen} <= {
        grpc.StatusCode.OK,
        grpc.StatusCode.UNAVAILABLE,
    }
    assert other in workers.pids
    assert victim not in workers.pids
    assert workers.samples()["trimtab_lists_total", "popular"] > counted > 0


def test_sigterm_drains_all_workers_and_calls_under_way_are_answered(workers: Workers) -> None:
    (valkey,) = [
        one for one in psutil.Process(workers.process.pid).children() if "valkey" in one.name()
    ]
    with workers.stubs() as stubs:
        for stub in stubs:
            stub.Recommend(pb.RecommendRequest(user_id="u", n=1))
        valkey.suspend()  # calls wait for the store, as long as it may take
        under_way = [stub.Recommend.future(pb.RecommendRequest(user_id="w", n=1)) for stub in stubs]
        time.sleep(0.1)
        workers.process.send_signal(signal.SIGTERM)
        assert all(call.result(timeout=5).items for call in under_way)
        valkey.resume()
    assert workers.process.wait(15) == 0
    assert not valkey.is_running()


def test_a_second_signal_ends_all_workers_at_once(workers: Workers) -> None:
    family = psutil.Process(workers.process.pid).children()
    with workers.stubs() as stubs:
        valkey = next(child for child in family if "valkey" in child.name())
        valkey.suspend()
        calls = [stub.Recommend.future(pb.RecommendRequest(user_id="w", n=1)) for stub in stubs]
        workers.process.send_signal(signal.SIGTERM)
        workers.process.send_signal(signal.SIGINT)  # another one: two of a kind may arrive as one
        valkey.resume()
        assert workers.process.wait(10) == 1
        assert not psutil.wait_procs(family, timeout=5)[1]
        for call in calls:
            call.cancel()


def test_workers_end_when_the_supervisor_is_killed(workers: Workers) -> None:
    family = psutil.Process(workers.process.pid).children()
    assert len(family) == 3
    workers.process.kill()
    assert not psutil.wait_procs(family, timeout=8)[1]


def test_a_port_with_workers_on_it_is_taken_for_every_other_server(
    shared: Workers, program: Program, bundle_dir: Path, tmp_path: Path
) -> None:
    port = int(shared.target.rpartition(":")[2])
    for many in ("1", "2"):
        with program(bundle_dir, tmp_path / many, port, "--workers", many) as process:
            _, error = process.communicate(timeout=30)
        assert process.returncode == 1
        assert str(port) in error
        assert "Traceback" not in error


def test_a_bundle_that_is_refused_ends_all_and_is_named_once(
    program: Program, tmp_path: Path, free_port: FindPort
) -> None:
    with program(tmp_path / "nowhere", tmp_path, free_port(), "--workers", "2") as process:
        _, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert error.count("no readable manifest.json") == 1
    assert "Traceback" not in error


def test_merged_metrics_add_up_except_infos_and_creation_times() -> None:
    parts = [Metrics(CollectorRegistry()) for _ in range(2)]
    for number, part in enumerate(parts, 1):
        part.bundle.info({"bundle_id": "b"})
        part.in_flight.set(number)
        part.sources.labels("popular").inc(10 * number)
        part.batch_size.observe(number)
    of_another: Info = parts[1].bundle
    of_another.info({"bundle_id": "c"})
    families = merged([family for part in parts for family in part.registry.collect()])
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }
    assert samples["trimtab_in_flight",] == 3
    assert samples["trimtab_lists_total", "popular"] == 30
    assert samples["trimtab_batch_size_bucket", "1.0"] == 1
    assert samples["trimtab_batch_size_bucket", "+Inf"] == 2
    assert samples["trimtab_batch_size_sum",] == 3
    assert samples["trimtab_bundle_info", "b"] == samples["trimtab_bundle_info", "c"] == 1
    created = [part.sources.labels("popular")._created for part in parts]
    assert samples["trimtab_lists_created", "popular"] == min(created)
    assert len({family.name for family in families}) == len(families)

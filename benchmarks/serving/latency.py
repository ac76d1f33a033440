"""Measures the time of one request from a client on the same machine.

    python -m benchmarks.serving.latency --bundle DIR


Starts trimtab-serve on the bundle with its embedded Valkey, records users with histories drawn from
the catalogue, and times single requests in interleaved rounds, so that the machine's moods touch
all rows alike. The first row is the floor: a handler of the same gRPC library that answers the same
bytes, and nothing else.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from rich.console import Console
from rich.table import Table
from trimtab import Client
from trimtab.v1 import concept_pb2, concept_pb2_grpc, recommendation_pb2_grpc, steering_pb2
from trimtab.v1 import recommendation_pb2 as pb

from benchmarks.serving.servers import free_port, running

NO_LOG = Path(os.devnull)


def timed(call: Callable[[], object], times: list[float]) -> None:
    start = time.perf_counter()
    call()
    times.append((time.perf_counter() - start) * 1e3)


def quantiles(times: list[float]) -> dict[str, float]:
    cut = statistics.quantiles(times, n=100)
    return {"p50_ms": cut[49], "p90_ms": cut[89], "p99_ms": cut[98]}


def measure(
    target: str, users: int, history_length: int, rounds: int
) -> dict[str, dict[str, float]]:
    channel = grpc.insecure_channel(target)
    stub = recommendation_pb2_grpc.RecommendationServiceStub(channel)
    concepts = concept_pb2_grpc.ConceptServiceStub(channel).ListConcepts(
        concept_pb2.ListConceptsRequest(page_size=1_000)
    )
    names = [concept.name for concept in concepts.concepts]
    everything = stub.Recommend(pb.RecommendRequest(history=pb.History(), n=1_000))
    catalogue = [item.item_id for item in everything.items]
    draw = random.Random(0)
    histories = [draw.sample(catalogue, history_length) for _ in range(users)]
    with Client(target) as client:
        client.record(
            (f"bench-{user}", item) for user, items in enumerate(histories) for item in items
        )

    def steering() -> steering_pb2.Steering:
        first, second = draw.sample(names, 2)
        edits = [
            steering_pb2.Edit(concept=first, strength=1.0),
            steering_pb2.Edit(concept=second, strength=-0.5),
        ]
        return steering_pb2.Steering(edits=edits)

    def warm(**fields: Any) -> Callable[[], object]:
        request = pb.RecommendRequest(user_id=f"bench-{draw.randrange(users)}", n=20, **fields)
        return lambda: stub.Recommend(request)

    def cold() -> Callable[[], object]:
        events = [pb.Event(item_id=item) for item in histories[draw.randrange(users)]]
        request = pb.RecommendRequest(history=pb.History(events=events), n=20)
        return lambda: stub.Recommend(request)

    answer = stub.Recommend(pb.RecommendRequest(user_id="bench-0", n=20)).SerializeToString()
    with tempfile.NamedTemporaryFile() as file:
        file.write(answer)
        file.flush()
        with running(
            [sys.executable, "-m", "benchmarks.serving.handlers", "--answer", file.name], NO_LOG
        ) as floor:
            assert floor.stdout
            floor_channel = grpc.insecure_channel(f"127.0.0.1:{int(floor.stdout.readline())}")
            floor_call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = floor_channel.unary_unary(
                "/bench/Call"
            )
            rows: dict[str, Callable[[], Callable[[], object]]] = {
                "floor: the same bytes from an empty handler": lambda: (
                    lambda: floor_call(b"x" * 40)
                ),
                "warm user, unsteered": warm,
                "warm user, two concepts": lambda: warm(steering=steering()),
                "the same with reasons, unsteered list and report": lambda: warm(
                    steering=steering(), explain=True, include_unsteered=True, include_report=True
                ),
                f"no stored user, a given history of {history_length}": cold,
            }
            for user in range(users):  # after this every embedding is cached
                stub.Recommend(pb.RecommendRequest(user_id=f"bench-{user}", n=20))
            times: dict[str, list[float]] = {name: [] for name in rows}
            for turn in range(rounds + 50):
                for name, make in rows.items():
                    timed(make(), times[name] if turn >= 50 else [])
            floor_channel.close()
    channel.close()
    return {name: quantiles(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--history", type=int, default=100, help="items in each user's history")
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    port = free_port()
    target = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as data_dir:
        serve = [
            str(Path(sys.executable).with_name("trimtab-serve")),
            "--bundle",
            str(arguments.bundle),
        ]
        serve += ["--listen", target, "--metrics-port", "0", "--data-dir", data_dir]
        with running(serve, NO_LOG):
            grpc.channel_ready_future(grpc.insecure_channel(target)).result(60)
            figures = measure(target, arguments.users, arguments.history, arguments.rounds)
    floor = next(iter(figures.values()))["p50_ms"]
    rounds = f"{arguments.rounds} interleaved rounds, {os.cpu_count()} cores"
    table = Table(title=f"one request at a time, n = 20, {rounds}")
    for column in ("request", "p50 ms", "p90 ms", "p99 ms", "p50 / floor"):
        table.add_column(column, justify="left" if column == "request" else "right")
    for name, row in figures.items():
        table.add_row(
            name, *(f"{value:.2f}" for value in row.values()), f"{row['p50_ms'] / floor:.1f}"
        )
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

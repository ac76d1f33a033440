"""Measures the cost of serving in the base case.

    python -m benchmarks.serving --out DIR [--parts ...] [--quick]


40,000 items, d = 512, 4,096 neurons, k = 32, n = 20, two edits, one worker, 32 calls under way,
10,000 users drawn Zipf-wise, their embeddings cached, no cache of replies. Server on core 0, load
on core 1. Ratios are medians over interleaved blocks A B A B. Every part leaves
DIR/cells/PART.json; serving_report.py makes the report of the cells that are there.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from json import dumps
from pathlib import Path

import grpc
import psutil
from google.protobuf.message import Message
from rich.console import Console
from trimtab.v1 import recommendation_pb2 as pb
from trimtab.v1 import recommendation_pb2_grpc
from trimtab.v1.steering_pb2 import Budget, TargetShare

from benchmarks.page import machine
from benchmarks.serving.bench import BATCH_SIZE, CONNECTIONS, Bench, Figures, N, fill
from benchmarks.serving.load import Request, read_requests, write_requests
from benchmarks.serving.report import write_report
from benchmarks.serving.servers import (
    BATCH,
    BOTH_CORES,
    comparison_server,
    put_load,
    trimtab_server,
)
from benchmarks.serving.stages import stages
from benchmarks.serving.world import World, WorldOptions, make_world, trained_world, user_id

MALFORMED = 1
WAVES = 10
SHARE_OF_CAPACITY = 0.6
LOADS = (0.2, 0.4, 0.6, 0.8, 0.9)

ON_ONE_CORE = ("--compute-threads", "0")
SOAK_MINUTES = 30


def comparison(bench: Bench) -> Figures:
    """Compares with an empty handler and one with a bare search; all reply the same bytes."""
    path = bench.requests("two edits", bench.steered)
    answer = bench.folder / "answer"
    with grpc.insecure_channel(bench.server.target) as channel:
        stub = recommendation_pb2_grpc.RecommendationServiceStub(channel)
        answer.write_bytes(
            stub.Recommend(bench.steered(user_id(0), random.Random(0))).SerializeToString()
        )
    log = bench.folder / "handlers.log"
    before = bench.server.metrics()
    with ExitStack() as stack:
        empty = stack.enter_context(comparison_server(answer, log))
        bare = stack.enter_context(comparison_server(answer, log, bench.world.bundle))
        servers = {"trimtab": bench.server, "empty handler": empty, "bare search": bare}
        seen = bench.interleaved(
            {name: partial(put_load, one, path) for name, one in servers.items()}
        )
    after = bench.server.metrics()
    change = {
        name: after[name] - before.get(name, 0.0)
        for name in after
        if after[name] != before.get(name)
    }
    return {"blocks": seen, "counted": change}


def steering_cost(bench: Bench) -> Figures:
    """Measures throughput with 0, 2, 8 and 64 edits, a boost, a budget, and a target share."""
    share = TargetShare(concept=bench.world.concepts[3], min_share=0.3)
    kinds: dict[str, Callable[[str, random.Random], Message]] = {
        "no edit": partial(bench.steered, edits=0),
        "2 edits": bench.steered,
        "8 edits": partial(bench.steered, edits=8),
        "64 edits": partial(bench.steered, edits=64),
        "a boost": bench.boosted,
        "2 edits, budget .1": partial(bench.steered, budget=Budget(max_relevance_loss=0.1)),
        "2 edits, share >= .3": partial(bench.steered, targets=[share]),
    }
    files = {name: bench.requests(name, make) for name, make in kinds.items()}
    return {
        "blocks": bench.interleaved(
            {name: partial(put_load, bench.server, path) for name, path in files.items()}
        )
    }


def steered_tail(bench: Bench) -> Figures:
    """Latencies with and without steering, and with 1 % malformed requests, at 60 % of capacity."""
    plain = bench.requests("no edit", partial(bench.steered, edits=0))
    path = bench.requests("two edits", bench.steered)
    mixed = bench.folder / "mixed.requests"
    write_requests(
        mixed,
        (
            Request(MALFORMED, b"\xff" + body[:20]) if place % 100 == 50 else Request(0, body)
            for place, (_, body) in enumerate(read_requests(path))
        ),
    )
    rate = SHARE_OF_CAPACITY * capacity(bench, path)
    sides = {"no edit": plain, "two edits": path, "two edits, 1 % malformed": mixed}
    return {
        "rate": rate,
        "blocks": bench.interleaved(
            {
                name: partial(put_load, bench.server, file, rate=rate)
                for name, file in sides.items()
            },
            times=3.0,  # of 1,000 calls the p99 is that of ten
        ),
    }


def batch(bench: Bench) -> Figures:
    """Users a second by BatchRecommend of 256, and by Recommend."""
    single = bench.requests("two edits", bench.steered)
    path = bench.folder / "batch.requests"
    draw = random.Random(1)
    size = bench.world.histories.size
    batches = [
        pb.BatchRecommendRequest(
            requests=[bench.steered(user_id(draw.randrange(size)), draw) for _ in range(BATCH_SIZE)]
        )
        for _ in range(100)
    ]
    write_requests(path, (Request(0, one.SerializeToString()) for one in batches))
    put = partial(put_load, bench.server, path, BATCH, concurrency=2)
    return {
        "blocks": bench.interleaved(
            {"Recommend": partial(put_load, bench.server, single), "BatchRecommend": put}
        )
    }


def idle(bench: Bench) -> Figures:
    """Measures one request at a time: a cached user, and a given history of 100 items."""

    def cold(user: str, draw: random.Random) -> Message:
        events = [pb.Event(item_id=draw.choice(bench.world.item_ids)) for _ in range(100)]
        request = bench.steered(user, draw)
        return pb.RecommendRequest(
            history=pb.History(events=events), n=N, steering=request.steering
        )

    files = {
        "warm": bench.requests("two edits", bench.steered),
        "cold": bench.requests("cold", cold),
    }
    return {
        "blocks": bench.interleaved(
            {
                name: partial(put_load, bench.server, file, concurrency=1)
                for name, file in files.items()
            }
        )
    }


def deadlines(bench: Bench) -> Figures:
    """Calls with 5 ms to live, 200 under way: how many lists were computed, how many answered."""
    path = bench.requests("two edits", bench.steered)
    counter = 'trimtab_stage_seconds_count{stage="rank"}'
    before = bench.server.metrics()[counter]
    figures = put_load(
        bench.server, path, concurrency=200, timeout_ms=5, warmup=0, seconds=bench.seconds
    )
    time.sleep(1)
    computed = bench.server.metrics()[counter] - before
    return {"codes": figures["codes"], "computed": computed}


def cancelled(bench: Bench) -> Figures:
    """Counts the lists computed for waves of 200 calls whose client cancels them after 5 ms."""
    counter = 'trimtab_stage_seconds_count{stage="rank"}'
    before = bench.server.metrics()[counter]
    draw = random.Random(2)
    answered = 0
    with grpc.insecure_channel(bench.server.target) as channel:
        stub = recommendation_pb2_grpc.RecommendationServiceStub(channel)
        for _ in range(WAVES):
            users = [draw.randrange(bench.world.histories.size) for _ in range(200)]
            calls = [stub.Recommend.future(bench.steered(user_id(user), draw)) for user in users]
            time.sleep(0.005)
            answered += sum(not call.cancel() for call in calls)
            time.sleep(0.1)
    time.sleep(1)
    return {
        "sent": 200 * WAVES,
        "answered": answered,
        "computed": bench.server.metrics()[counter] - before,
    }


def latency_against_load(bench: Bench) -> Figures:
    """Measures open-loop arrivals at shares of the capacity that a closed loop reaches."""
    path = bench.requests("two edits", bench.steered)
    most = capacity(bench, path)
    points = []
    for share in LOADS:
        figures = put_load(bench.server, path, rate=share * most, seconds=2 * bench.seconds)
        points.append({"share": share, "rate": share * most, **figures, "histogram_ms": None})
    return {"capacity": most, "points": points}


def workers(bench: Bench) -> Figures:
    """Measures one worker and two, with both cores for them and for the load."""
    path = bench.requests("two edits", bench.steered)
    log = bench.folder / "server.log"
    kinds: dict[str, tuple[int, tuple[str, ...]]] = {
        "1 worker": (1, ()),
        "2 workers": (2, ()),
        "2 workers, computing on the loop": (2, ("--compute-threads", "0")),
    }
    sides: dict[str, Callable[..., Figures]] = {}
    with ExitStack() as stack:
        for name, (count, flags) in kinds.items():
            data = bench.folder / f"data of {name}"
            making = trimtab_server(
                bench.world.bundle, data, log, *flags, workers=count, cores=BOTH_CORES
            )
            server = stack.enter_context(making)
            fill(bench.world, server)
            sides[name] = partial(put_load, server, path, cores=BOTH_CORES, connections=CONNECTIONS)
            sides[name](seconds=bench.seconds)  # every worker reads users from the store
        return {"blocks": bench.interleaved(sides)}


def soak(bench: Bench) -> Figures:
    """Measures latencies and memory in each of 30 minutes at 60 % of capacity."""
    path = bench.requests("two edits", bench.steered)
    rate = SHARE_OF_CAPACITY * capacity(bench, path)
    process = psutil.Process(bench.server.pid)
    minutes = []
    for minute in range(SOAK_MINUTES):
        figures = put_load(
            bench.server, path, rate=rate, seconds=60, warmup=0, seed=minute, offset=minute * 1_987
        )
        rss_mb = process.memory_info().rss / 2**20
        minutes.append({"rss_mb": rss_mb, **figures, "histogram_ms": None})
    return {"rate": rate, "minutes": minutes}


def capacity(bench: Bench, requests: Path) -> float:
    return float(put_load(bench.server, requests, seconds=bench.seconds)["throughput"])


def metrics_cost(bench: Bench) -> Figures:
    """Measures throughput with metrics, and of the same server without them."""
    path = bench.requests("two edits", bench.steered)
    program = (sys.executable, "-m", "benchmarks.serving.uncounted")
    data = bench.folder / "uncounted"
    log = bench.folder / "uncounted.log"
    with trimtab_server(bench.world.bundle, data, log, *ON_ONE_CORE, program=program) as other:
        fill(bench.world, other)
        sides = {"metrics on": bench.server, "metrics off": other}
        return {
            "blocks": bench.interleaved(
                {name: partial(put_load, one, path) for name, one in sides.items()}
            )
        }


def parts_of_a_call(bench: Bench) -> Figures:
    """Measures each of our parts of a call alone."""
    return stages(bench.world, bench.requests("two edits", bench.steered))


PARTS: dict[str, Callable[[Bench], Figures]] = {
    "comparison": comparison,
    "stages": parts_of_a_call,
    "steering": steering_cost,
    "tail": steered_tail,
    "batch": batch,
    "idle": idle,
    "deadlines": deadlines,
    "cancelled": cancelled,
    "load": latency_against_load,
    "metrics": metrics_cost,
    "soak": soak,
    "workers": workers,
}


def measure(out: Path, world: World, parts: Sequence[str], blocks: int, seconds: float) -> None:
    cells = out / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    with trimtab_server(world.bundle, out / "data", out / "server.log", *ON_ONE_CORE) as server:
        fill(world, server)
        bench = Bench(world, server, out, blocks, seconds)
        for name in parts:
            started = time.monotonic()
            figures = PARTS[name](bench)
            (cells / f"{name}.json").write_text(
                dumps(figures | {"block_seconds": seconds, "measured_on": machine()})
            )
            Console().print(f"{name}: {time.monotonic() - started:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="world, users' data and cells; kept"
    )
    parser.add_argument(
        "--parts",
        nargs="*",
        choices=PARTS,
        default=[name for name in PARTS if name != "soak"],
        help="none: report again",
    )
    parser.add_argument("--quick", action="store_true", help="3 blocks of 1 s instead of 10 of 2 s")
    parser.add_argument(
        "--flat-limit",
        type=int,
        default=WorldOptions.flat_limit,
        help="see world.py; 40000 serves exactly",
    )
    parser.add_argument(
        "--run", type=Path, help="a training run: its bundle and users instead of made-up ones"
    )
    parser.add_argument(
        "--report", type=Path, help="write the report (.md) and its plot (.png) here"
    )
    arguments = parser.parse_args()
    about = ""
    if arguments.run:
        world = trained_world(arguments.run, arguments.out / "world")
        about = (
            f"Here the bundle and the users are a training run's instead: {world.about}, "
            f"{len(world.item_ids):,} items, {world.n_neurons:,} neurons, "
            f"{world.histories.size:,} users."
        )
    else:
        world = make_world(WorldOptions(flat_limit=arguments.flat_limit), arguments.out / "world")
    blocks, seconds = (3, 1.0) if arguments.quick else (10, 2.0)
    if arguments.parts:
        measure(arguments.out, world, arguments.parts, blocks, seconds)
    write_report(arguments.out, arguments.report or arguments.out / "performance.md", about)


if __name__ == "__main__":
    main()

"""Compares Trimtab with other servers of the same pipeline.

    python -m benchmarks.peers --out DIR --venvs DIR --report FILE


The base case of serving.py: one world, one Valkey with the same users for all, and both cores for
whichever server is under load and for the load. Every peer's lists are compared with Trimtab's
before. A peer that does not start is reported as not run, with the reason. README.md says how each
is set up. Every part leaves DIR/cells/peers-PART.json; the report is made of the cells that are
there.
"""

import argparse
import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import grpc
from trimtab.v1 import recommendation_pb2 as pb
from trimtab.v1.recommendation_pb2_grpc import RecommendationServiceStub

from benchmarks.peers.prepare import prepare
from benchmarks.peers.report import write_report
from benchmarks.peers.sides import PEERS, Peer, Setup
from benchmarks.serving.bench import CONNECTIONS, Bench, Figures, fill
from benchmarks.serving.load import read_requests
from benchmarks.serving.servers import BOTH_CORES, Server, put_load, trimtab_server
from benchmarks.serving.world import WorldOptions, make_world
from service.storage.embedded_valkey import embedded_valkey

SHARE_OF_PEER = 0.6
"""Load at which latencies are compared, as a share of the peer's throughput."""
CHECKED = 50
"""Requests whose lists are compared."""
ON_LOOP = ("--compute-threads", "0")
TRIMTAB = {"trimtab": ON_LOOP, "trimtab, users from Redis": (*ON_LOOP, "--user-tier-mb", "0")}
"""Flags; computing on the loop is fastest where each core has a worker (serving, part workers)."""
WORKERS = 2
"""Processes of Trimtab; the peers' files name their own."""


class Sides(NamedTuple):
    """The servers under load, and the comparison of their lists."""

    bench: Bench
    put: dict[str, Callable[..., Figures]]
    overlap: dict[str, float]
    """Share of Trimtab's items in each peer's lists."""
    not_run: dict[str, str]


@contextmanager
def started(setup: Setup, world_dir: Path, blocks: int, seconds: float) -> Iterator[Sides]:
    world = make_world(WorldOptions(), world_dir)
    prepare(world.bundle, setup.out)
    put: dict[str, Callable[..., Figures]] = {}
    overlaps: dict[str, float] = {}
    not_run: dict[str, str] = {}
    with ExitStack() as stack:
        for name, flags in TRIMTAB.items():
            flags = ("--redis", setup.store, *flags)
            making = trimtab_server(
                world.bundle, setup.out, setup.log, *flags, workers=WORKERS, cores=BOTH_CORES
            )
            server = stack.enter_context(making)
            fill(world, server)
            bench = Bench(world, server, setup.out, blocks, seconds)
            requests = bench.requests("two edits", bench.steered)
            put[name] = partial(
                put_load, server, requests, cores=BOTH_CORES, connections=CONNECTIONS
            )
        asked = [pb.RecommendRequest.FromString(body) for _, body in read_requests(requests)]
        lists = trimtab_lists(server, asked[:CHECKED])
        for peer in PEERS:
            try:
                running = stack.enter_context(peer.running(setup))
            except (OSError, ValueError) as error:
                not_run[peer.name] = str(error)
                continue
            overlaps[peer.name] = overlap(lists, peer.ask(setup, running, asked[:CHECKED]))
            put[peer.name] = loading(setup, peer, running, asked)
        for one in put.values():
            one(seconds=seconds)  # every process warm
        yield Sides(bench, put, overlaps, not_run)


def loading(
    setup: Setup, peer: Peer, server: Server, asked: list[pb.RecommendRequest]
) -> Callable[..., Figures]:
    return partial(put_load, server, peer.write(setup, asked), cores=BOTH_CORES, **peer.load)


def throughput(sides: Sides, _cells: Path) -> Figures:
    """Measures the throughput of each, 32 calls under way."""
    return {
        "blocks": sides.bench.interleaved(sides.put),
        "overlap": sides.overlap,
        "not_run": sides.not_run,
    }


def latency(sides: Sides, cells: Path) -> Figures:
    """Measures the latency of each peer and of Trimtab at a share of the peer's throughput."""
    closed = json.loads((cells / "peers-throughput.json").read_text())["blocks"]
    figures = {}
    for peer in [name for name in sides.put if name not in TRIMTAB]:
        reached = sorted(block["throughput"] for block in closed[peer])
        rate = SHARE_OF_PEER * reached[len(reached) // 2]
        pair = {name: partial(sides.put[name], rate=rate) for name in ("trimtab", peer)}
        figures[peer] = {"rate": rate, "blocks": sides.bench.interleaved(pair)}
    return figures


PARTS: dict[str, Callable[[Sides, Path], Figures]] = {"throughput": throughput, "latency": latency}


def trimtab_lists(server: Server, asked: list[pb.RecommendRequest]) -> list[list[str]]:
    with grpc.insecure_channel(server.target) as channel:
        stub = RecommendationServiceStub(channel)
        return [[item.item_id for item in stub.Recommend(request).items] for request in asked]


def overlap(lists: list[list[str]], others: list[list[str]]) -> float:
    """Computes the mean share of items that both lists have."""
    pairs = zip(lists, others, strict=True)
    return sum(len(set(ours) & set(theirs)) / len(ours) for ours, theirs in pairs) / len(lists)


async def measure(arguments: argparse.Namespace) -> None:
    cells = arguments.out / "cells"
    folder = (arguments.out / "peers").resolve()
    for made in (cells, folder):
        made.mkdir(parents=True, exist_ok=True)

    def run(store: str) -> None:
        setup = Setup(arguments.venvs.resolve(), folder, store)
        with started(setup, arguments.out / "world", arguments.blocks, arguments.seconds) as sides:
            for part in arguments.parts:
                (cells / f"peers-{part}.json").write_text(json.dumps(PARTS[part](sides, cells)))

    async with embedded_valkey(folder / "store") as store:
        await asyncio.to_thread(run, store)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="as of serving.py, whose world is used"
    )
    parser.add_argument(
        "--venvs", type=Path, required=True, help="mosec, fastapi and triton; see README.md"
    )
    parser.add_argument("--report", type=Path, required=True, help="the report (.md)")
    parser.add_argument("--note", default="", help="what else is to be known of the machine")
    parser.add_argument(
        "--parts", nargs="*", choices=PARTS, default=list(PARTS), help="none: report again"
    )
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each block")
    arguments = parser.parse_args()
    if arguments.parts:
        asyncio.run(measure(arguments))
    write_report(arguments.out / "cells", arguments.report, arguments.note)


if __name__ == "__main__":
    main()

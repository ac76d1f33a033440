"""Compares versions of grpcio under the same servers.

    python -m benchmarks.serving.grpc_versions --out DIR


An empty handler and the service, each with each version, all on core 0 and under the same load from
core 1, in turn. The versions are installed into DIR for it; the world is serving.py's. Prints the
report.
"""

import argparse
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import grpc
from trimtab.v1 import recommendation_pb2_grpc

from benchmarks.page import machine, page
from benchmarks.serving.bench import Bench, Figures, fill
from benchmarks.serving.blocks import ratio, throughputs, values
from benchmarks.serving.servers import Server, comparison_server, put_load, trimtab_server
from benchmarks.serving.world import WorldOptions, make_world, user_id

OLDEST = "1.75.1"
NEWEST = "1.85.1"
"""The one that the generated code asks for at least, and the newest when this was measured."""
COMPANIONS = tuple(
    f"grpcio-{name}=={OLDEST}" for name in ("health-checking", "status", "reflection")
)
"""They refuse a grpcio older than themselves."""
EMPTY = "empty handler"
OURS = "trimtab"
ABOUT = """\
The same servers with each version, in turn; load, cores and requests as in
[serving](performance.md). The first version is the lowest that the generated code accepts."""


def installed(number: str, folder: Path) -> Path:
    """Installs this version and its companions into a directory of their own."""
    place = folder / f"grpcio-{number}"
    if not place.exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(place),
        ]
        subprocess.run([*command, f"grpcio=={number}", *COMPANIONS], check=True)
    return place


def measure(
    out: Path, numbers: Sequence[str], blocks: int, seconds: float
) -> dict[str, list[Figures]]:
    """Blocks of load by server and version."""
    world = make_world(WorldOptions(), out / "world")
    log = out / "grpc-versions.log"
    sides: dict[str, Server] = {}
    path = os.environ.get("PYTHONPATH", "")
    answer = out / "answer"
    with ExitStack() as stack:
        for number in numbers:
            os.environ["PYTHONPATH"] = f"{installed(number, out)}:{path}"  # the servers inherit it
            asked = [sys.executable, "-c", "import grpc; print(grpc.__version__)"]
            if (found := subprocess.check_output(asked, text=True).strip()) != number:
                raise RuntimeError(f"grpcio {found} would be measured, {number} expected")
            data = out / f"data-{number}"
            server = stack.enter_context(
                trimtab_server(world.bundle, data, log, "--compute-threads", "0")
            )
            fill(world, server)
            bench = Bench(world, server, out, blocks, seconds)
            with grpc.insecure_channel(server.target) as channel:
                stub = recommendation_pb2_grpc.RecommendationServiceStub(channel)
                reply = stub.Recommend(bench.steered(user_id(0), random.Random(0)))
            answer.write_bytes(reply.SerializeToString())
            sides[f"{OURS}, {number}"] = server
            sides[f"{EMPTY}, {number}"] = stack.enter_context(comparison_server(answer, log))
        os.environ["PYTHONPATH"] = path
        requests = bench.requests("two edits", bench.steered)
        order = [f"{kind}, {number}" for kind in (EMPTY, OURS) for number in numbers]
        return bench.interleaved({name: partial(put_load, sides[name], requests) for name in order})


def report(blocks: dict[str, list[Figures]], first: str, others: Sequence[str]) -> str:
    """Makes the page."""
    versions = " ".join((first, *others))
    command = f"python -m benchmarks.serving.grpc_versions --out .bench --versions {versions}"
    lines = []
    for kind in (EMPTY, OURS):
        for other in others:
            figure = ratio(values(blocks[f"{kind}, {other}"]), values(blocks[f"{kind}, {first}"]))
            lines.append(f"- {kind}, calls a second with {other} / with {first}: {figure}.")
    return page(
        "Versions of grpcio", command, ABOUT, machine(), throughputs(blocks), "\n".join(lines)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="world, users' data and versions; kept"
    )
    parser.add_argument("--versions", nargs="+", default=(OLDEST, NEWEST))
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    first, *others = arguments.versions
    blocks = measure(arguments.out, arguments.versions, arguments.blocks, arguments.seconds)
    print(report(blocks, first, others), end="")


if __name__ == "__main__":
    main()

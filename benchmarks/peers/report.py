"""The report of compare.py's cells: throughput and latency of Trimtab and its peers, as ratios."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.serving.blocks import latencies, machine, ratio, throughputs, values

BARS = {"triton": 1.5, "mosec": 1.5, "fastapi": 3.0}
METHOD = """\
    python -m benchmarks.peers --out .bench --venvs DIR --report docs/results/peers.md

The same pipeline on each: the user's embedding from Redis, two edits, an approximate FAISS search of
40,000 items at d = 512, seen items dropped, exact scores, n = 20; [how each is set
up](../../benchmarks/peers/README.md). Two processes of each server, and the load, share two cores.
Trimtab computes on its event loop (`--compute-threads 0`) and keeps users in its processes; "users from
Redis" is Trimtab without that (`--user-tier-mb 0`), which asks Redis for each call as the peers do. The
peers do less: no validation, report, metrics, deadlines or priorities, no check that the embedding still
fits the history, and no look into more of the index's cells where more than 100 candidates are needed.

Loaded by `benchmarks/serving/load.py`: Trimtab and Triton over gRPC on 16 connections, mosec and FastAPI over
HTTP/1.1, with JSON, on 32. Sides are measured in turn; a ratio is the median of the blocks' ratios with
a 95 % bootstrap interval."""


def write_report(cells: Path, report: Path, note: str) -> None:
    """Writes the report, and its figures as .json."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(cells.glob("peers-*.json"))}
    lines = ["# Peers: measured", "", METHOD, "", machine(), note, ""]
    if "peers-throughput" in found:
        lines += [*_throughput(found["peers-throughput"]), ""]
    if "peers-latency" in found:
        lines += [*_latency(found["peers-latency"]), ""]
    report.write_text("\n".join(lines).rstrip() + "\n")
    report.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


def _throughput(cell: dict[str, Any]) -> Iterator[str]:
    blocks = cell["blocks"]
    yield "## Throughput, 32 calls under way"
    yield ""
    yield from throughputs(blocks)
    yield ""
    for peer, bar in BARS.items():
        if peer in cell["not_run"]:
            yield f"- {peer}: not run. {cell['not_run'][peer]}"
            continue
        found = ratio(values(blocks["trimtab"]), values(blocks[peer]))
        bare = ratio(values(blocks["trimtab, users from Redis"]), values(blocks[peer]))
        yield (
            f"- trimtab / {peer}: {found}; the bar is {bar}: {found.against(bar, at_least=True)}. With users "
            f"from Redis: {bare}. Of the lists' items {cell['overlap'][peer]:.3f} are Trimtab's, too."
        )


def _latency(cell: dict[str, Any]) -> Iterator[str]:
    yield "## Latency at equal load (open loop, 60 % of the peer's throughput)"
    for peer, measured in cell.items():
        blocks = measured["blocks"]
        yield ""
        yield f"{peer}, {measured['rate']:,.0f} arrivals a second:"
        yield ""
        yield from latencies(blocks)
        yield ""
        p50 = ([block["latency_ms"]["p50"] for block in blocks[side]] for side in ("trimtab", peer))
        found = ratio(*p50)
        yield f"- p50 trimtab / {peer}: {found}; the bar is 1: {found.against(1.0, at_least=False)}."

"""Writes the page of the peers: throughput and latency of Trimtab and others, as ratios."""

from pathlib import Path
from typing import Any

from benchmarks.page import join, machine, page, read_cells, section, write_page
from benchmarks.serving.blocks import latencies, ratio, throughputs, values

BARS = {"triton": 1.5, "mosec": 1.5, "fastapi": 3.0}
"""Trimtab's promised throughput, as a multiple of each peer's."""
COMMAND = "python -m benchmarks.peers --out .bench --venvs DIR --report docs/results/peers.md"
METHOD = """\
The same pipeline on each: the user's embedding from Redis, two edits, an approximate FAISS search
of 40,000 items at d = 512, seen items dropped, exact scores, n = 20; [how each is set
up](../../benchmarks/peers/README.md). Two processes of each server, and the load, share two
cores. Trimtab computes on its event loop (`--compute-threads 0`) and keeps users in its
processes; "users from Redis" is Trimtab without that (`--user-tier-mb 0`), which asks Redis for
each call as the peers do. The peers do less: no validation, report, metrics, deadlines or
priorities, no check that the embedding still fits the history, and no search of more of the
index's cells where more than 100 candidates are needed.

Loaded by `benchmarks/serving/load.py`: Trimtab and Triton over gRPC on 16 connections, mosec and
FastAPI over HTTP/1.1, with JSON, on 32. Sides are measured in turn; a ratio is the median of the
blocks' ratios with a 95 % bootstrap interval."""


def write_report(cells: Path, report: Path, note: str) -> None:
    """Writes the page, and its figures as .json; `note` says more about the machine."""
    figures = read_cells(cells, "peers-*.json")
    sections = []
    if "peers-throughput" in figures:
        sections.append(_throughput(figures["peers-throughput"]))
    if "peers-latency" in figures:
        sections.append(_latency(figures["peers-latency"]))
    about = machine() + (f"\n{note}" if note else "")
    write_page(report, page("Peers", COMMAND, METHOD, about, *sections), figures)


def _throughput(cell: dict[str, Any]) -> str:
    blocks = cell["blocks"]
    own = values(blocks["trimtab"])
    from_redis = values(blocks["trimtab, users from Redis"])
    lines = []
    for peer, bar in BARS.items():
        if peer in cell["not_run"]:
            lines.append(f"- {peer}: not run. {cell['not_run'][peer]}")
            continue
        theirs = values(blocks[peer])
        figure = ratio(own, theirs)
        verdict = figure.against(bar, at_least=True)
        lines.append(
            f"- trimtab / {peer}: {figure}; the bar is {bar}: {verdict}. With users from Redis: "
            f"{ratio(from_redis, theirs)}. Of the lists' items {cell['overlap'][peer]:.3f} are "
            "Trimtab's, too."
        )
    return section("Throughput, 32 calls under way", throughputs(blocks), "\n".join(lines))


def _latency(cell: dict[str, Any]) -> str:
    title = "Latency at equal load (open loop, 60 % of the peer's throughput)"
    return section(title, *(_beside(peer, measured) for peer, measured in cell.items()))


def _beside(peer: str, measured: dict[str, Any]) -> str:
    """Compares the latencies of Trimtab and one peer."""
    blocks = measured["blocks"]
    sides = ([block["latency_ms"]["p50"] for block in blocks[side]] for side in ("trimtab", peer))
    figure = ratio(*sides)
    verdict = figure.against(1.0, at_least=False)
    return join(
        f"{peer}, {measured['rate']:,.0f} arrivals a second:",
        latencies(blocks),
        f"- p50 trimtab / {peer}: {figure}; the bar is 1: {verdict}.",
    )

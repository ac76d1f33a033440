"""What blocks of load were measured to be: ratios with their intervals, tables, and on which machine."""

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.serving.load import ANSWERED

LIBRARIES = ("grpcio", "faiss-cpu", "onnxruntime", "redis", "numpy", "protobuf", "uvloop")
DRAWS = 10_000
LATE_MS = 1.0


class Ratio(NamedTuple):
    """Median of the blocks' ratios, and the interval that holds 95 % of bootstrapped medians."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"

    def against(self, bar: float, *, at_least: bool) -> str:
        if self.low <= bar <= self.high and self.low < self.high:
            return "inconclusive"
        return "met" if (self.median >= bar) == at_least else "missed"


def ratio(above: list[float], below: list[float]) -> Ratio:
    """Of blocks that were measured in turn."""
    ratios = np.array(above) / np.array(below)
    drawn = np.random.default_rng(0).choice(ratios, (DRAWS, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return Ratio(float(np.median(ratios)), float(low), float(high))


def machine() -> str:
    """The machine, the libraries and the commit, in words."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    python = platform.python_version()
    return f"{os.cpu_count()} cores of {model}, Python {python}, {libraries}; commit {commit}."


def measured_on(cells: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What machine() said when each part was measured, once for parts of which it said the same."""
    parts: dict[str, list[str]] = {}
    for name, cell in cells.items():
        parts.setdefault(cell.get("measured_on", "not recorded"), []).append(name)
    for text, names in parts.items():
        yield text if len(parts) == 1 else f"- {', '.join(names)}: {text}"


def lateness(blocks: list[dict[str, Any]]) -> Iterator[str]:
    """Says so where the load itself did not run in time."""
    late = sum(block["sent_late_p99_ms"] > LATE_MS for block in blocks)
    if late:
        yield ""
        yield (
            f"In {late} of {len(blocks)} blocks 1 % of the calls were sent more than {LATE_MS:g} ms late: "
            "other work had the load's core. Their tails are the machine's, not the server's."
        )


def throughputs(blocks: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    yield "| server | calls a second | CPU us a call | p50 ms | p99 ms | load's share of a core | not OK |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, of_one in blocks.items():
        share = np.median([block["generator_cpu_share"] for block in of_one])
        yield (
            f"| {name} | {np.median(values(of_one)):,.0f} | {cpu_us(of_one):,.0f} "
            f"| {latency(of_one, 'p50'):.2f} | {latency(of_one, 'p99'):.2f} | {share:.2f} "
            f"| {faults(of_one)} |"
        )


def latencies(blocks: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    yield "| request | p50 ms | p90 ms | p99 ms | not OK |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, of_one in blocks.items():
        row = " | ".join(f"{latency(of_one, quantile):.2f}" for quantile in ("p50", "p90", "p99"))
        yield f"| {name} | {row} | {faults(of_one)} |"


def values(blocks: list[dict[str, Any]]) -> list[float]:
    return [block["throughput"] for block in blocks]


def cpu_us(blocks: list[dict[str, Any]]) -> float:
    """Microseconds of the server's processes a call, of the median block."""
    return float(
        np.median([1e6 * block["watched_cpu_share"] / block["throughput"] for block in blocks])
    )


def latency(blocks: list[dict[str, Any]], quantile: str) -> float:
    """The median block's."""
    return float(np.median([block["latency_ms"][quantile] for block in blocks]))


def p99_of(block: dict[str, Any]) -> float:
    """Of well-formed requests, where some are not."""
    kept: dict[str, Any] = block["kinds"].get("0", block)
    return float(kept["latency_ms"]["p99"])


def faults(blocks: list[dict[str, Any]]) -> int:
    return sum(
        sum(count for code, count in block["codes"].items() if code not in ANSWERED)
        + block["unanswered"]
        + block["dropped"]
        for block in blocks
    )

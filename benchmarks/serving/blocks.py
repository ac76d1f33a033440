"""Figures of blocks of load: ratios with their intervals, and tables."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.page import table
from benchmarks.serving.load import ANSWERED

Block = dict[str, Any]
"""Figures of one block, as load.py prints them."""
DRAWS = 10_000
"""Bootstrap samples of a ratio's interval."""
LATE_MS = 1.0
"""Delay of sending, at the 99th percentile, above which a block's tail is not the server's."""


class Ratio(NamedTuple):
    """Median of the blocks' ratios, and the interval that holds 95 % of bootstrapped medians."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"

    def against(self, bar: float, *, at_least: bool) -> str:
        """Judges the ratio: met, missed, or inconclusive where the interval spans the bar."""
        if self.low <= bar <= self.high and self.low < self.high:
            return "inconclusive"
        return "met" if (self.median >= bar) == at_least else "missed"


def ratio(above: list[float], below: list[float]) -> Ratio:
    """Computes the ratio of two sides whose blocks were measured in turn."""
    ratios = np.array(above) / np.array(below)
    drawn = np.random.default_rng(0).choice(ratios, (DRAWS, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return Ratio(float(np.median(ratios)), float(low), float(high))


def measured_on(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """Names the machine of each part, once for all parts that were measured on the same."""
    parts: dict[str, list[str]] = {}
    for name, cell in cells.items():
        parts.setdefault(cell.get("measured_on", "not recorded"), []).append(name)
    if len(parts) == 1:
        return next(iter(parts))
    return "\n".join(f"- {', '.join(names)}: {text}" for text, names in parts.items())


def lateness(blocks: list[Block]) -> str:
    """Warns where the load itself was sent late; empty where it was not."""
    late = sum(block["sent_late_p99_ms"] > LATE_MS for block in blocks)
    if not late:
        return ""
    return (
        f"In {late} of {len(blocks)} blocks 1 % of the calls were sent more than {LATE_MS:g} ms "
        "late: other work had the load's core. Their tails are the machine's, not the server's."
    )


def throughputs(blocks: Mapping[str, list[Block]]) -> str:
    """Makes the table of calls a second, their CPU time and latency."""
    columns = ("server", "calls a second", "CPU us a call", "p50 ms", "p99 ms")
    rows = [
        (
            name,
            f"{np.median(values(of_one)):,.0f}",
            f"{cpu_us(of_one):,.0f}",
            f"{latency(of_one, 'p50'):.2f}",
            f"{latency(of_one, 'p99'):.2f}",
            f"{np.median([block['generator_cpu_share'] for block in of_one]):.2f}",
            faults(of_one),
        )
        for name, of_one in blocks.items()
    ]
    return table((*columns, "load's share of a core", "not OK"), rows)


def latencies(blocks: Mapping[str, list[Block]]) -> str:
    """Makes the table of latencies."""
    quantiles = ("p50", "p90", "p99")
    rows = [
        (name, *(f"{latency(of_one, quantile):.2f}" for quantile in quantiles), faults(of_one))
        for name, of_one in blocks.items()
    ]
    return table(("request", "p50 ms", "p90 ms", "p99 ms", "not OK"), rows)


def values(blocks: list[Block]) -> list[float]:
    """Reads each block's calls a second."""
    return [block["throughput"] for block in blocks]


def cpu_us(blocks: list[Block]) -> float:
    """Computes microseconds of the server's processes for one call, of the median block."""
    return float(
        np.median([1e6 * block["watched_cpu_share"] / block["throughput"] for block in blocks])
    )


def latency(blocks: list[Block], quantile: str) -> float:
    """Computes a quantile of the latency, in ms, of the median block."""
    return float(np.median([block["latency_ms"][quantile] for block in blocks]))


def p99_of(block: Block) -> float:
    """Reads a block's p99, in ms; of the well-formed requests where some are malformed."""
    kept: Block = block["kinds"].get("0", block)
    return float(kept["latency_ms"]["p99"])


def faults(blocks: list[Block]) -> int:
    """Counts the calls that failed, went unanswered or were never sent."""
    return sum(
        sum(count for code, count in block["codes"].items() if code not in ANSWERED)
        + block["unanswered"]
        + block["dropped"]
        for block in blocks
    )

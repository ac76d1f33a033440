"""Writes the page of serving: tables of ratios with their intervals, and two plots."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import linregress

from benchmarks.page import page, read_cells, section, table, write_page
from benchmarks.serving.blocks import (
    cpu_us,
    faults,
    latencies,
    latency,
    lateness,
    measured_on,
    p99_of,
    ratio,
    throughputs,
    values,
)
from benchmarks.serving.plots import plot

Cell = dict[str, Any]
"""Figures of one part."""
METHOD = """\
The base case: 40,000 items in 200 clusters, d = 512, 4,096 neurons, k = 32, identity head, n =
20, two edits (a concept and a neuron); 10,000 users with 20 to 100 items each, drawn from a Zipf
distribution, their embeddings cached in Redis and in the process; replies are not cached. One
worker. The server and its embedded Valkey run on core 0, the load on core 1; lists are computed
on the event loop (`--compute-threads 0`). The bundle's index is the fastest one with enough
recall, as the exporter chooses it (docs/bundle.md); with `--flat-limit 40000` every item is
scored.

Requests are serialised beforehand and sent by `benchmarks/serving/load.py` over four connections,
without a client library: 36 us of CPU a call when it was measured at 8,000 a second, where
grpc.aio took 99 and grpc's synchronous futures 88. Sides of a comparison are measured in turn, A
B A B. A ratio is the median of the blocks' ratios with a 95 % bootstrap interval; where that
spans the bar, the answer is inconclusive. Latencies are the median block's; those of an open loop
count from the moment when a call was due. Both comparison servers answer the bytes of a real
reply; the bare search is one query on the same index."""
TRIED = """\
Our parts are each measured alone, 32 calls at a time; the last row is the rest of the whole. Most
of it is the hand-over between threads: by `perf stat` and `perf record` on the server, a call
changed threads 18 times and spent 217 us in the kernel, one of the empty handler 13 times and 132
us. gRPC's event engine, its poller and the loop hand each call on to one another, here all on one
core, and ours do that between batches that hold the core for milliseconds.

What was tried, calls a second in the base case on a machine with little other work:

- Lists computed together: a batch began in the loop's next turn after a call arrived, and held
  1.1 lists, because gRPC delivers at most one call a turn. Now it begins after some turns that
  delivered none, and holds 22: 1,500 to 2,100.
- The store moved into the server's session: before, the kernel's autogroups made it wait 0.4 s
  for the busy server, so a third of the users was read again. p99 66 to 27 ms.
- Python's garbage collector walked through all cached users several times in ten seconds, for 80
  ms each: a full collection is now rare. p99.9 130 to 30 ms.
- Durations buffered and bucketed when Prometheus scrapes: its client's histograms took two locks
  for each of eight observations, and metrics a tenth of a call (1.079 of the time without, now
  1.015).
- Computing in one or two threads instead of the loop: the same on one core. gRPC without its
  event engine (`GRPC_EXPERIMENTS`, not an option for users): 465 to 435 us a call. Its
  optimisation target and the size of its reads: no effect.
- The rest is many small steps in Python. The bare search leaves 37 us for all of them at the bar
  of 0.85; parsing the request and building the reply alone take about as much."""
_STAGE = re.compile(r'trimtab_stage_seconds_sum{stage="(.*)"}')


def write_report(out: Path, report: Path, about: str = "") -> None:
    """Writes the page, its figures as .json and, if they were measured, its plots as .png.

    Args:
        out: Holds the parts' figures in cells/, and further remarks in remarks.md, if any.
        report: The page.
        about: Describes the world where it is not the base case.
    """
    cells = read_cells(out / "cells")
    sections = [make(cells[name]) for name, make in MAKERS.items() if name in cells]
    shares = {}
    if {"stages", "comparison"} <= cells.keys():
        shares = _shares(cells["stages"], cells["comparison"])
        sections.append(_stages(shares))
    if shares or "load" in cells:
        picture = report.with_suffix(".png")
        plot(cells.get("load"), shares, picture)
        sections.append(f"![latency against load, and the parts of a call]({picture.name})")
    if (remarks := out / "remarks.md").is_file():
        sections.append(section("Remarks of whoever measured", remarks.read_text().strip()))
    if missing := [name for name in (*MAKERS, "stages") if name not in cells]:
        sections.append(f"Not measured: {', '.join(missing)}.")
    command = "python -m benchmarks.serving --run RUN --out DIR" if about else "make bench"
    text = page("Serving", command, METHOD, about, measured_on(cells), *sections)
    write_page(report, text, cells)


def _comparison(cell: Cell) -> str:
    blocks = cell["blocks"]
    counted = cell["counted"]
    own = values(blocks["trimtab"])
    lines = []
    for name, bar in (("bare search", 0.85), ("empty handler", 0.60)):
        figure = ratio(own, values(blocks[name]))
        verdict = figure.against(bar, at_least=True)
        lines.append(f"- trimtab / {name}: {figure}; the bar is {bar}: {verdict}.")
    reads = {
        result: counted.get(f'trimtab_user_tier_reads_total{{result="{result}"}}', 0.0)
        for result in ("hit", "miss", "bypass")
    }
    if total := sum(reads.values()):
        lines.append(f"- Users found in the process: {reads['hit'] / total:.3f} of reads.")
    stages = []
    for name, seconds in counted.items():
        if stage := _STAGE.fullmatch(name):
            count = counted[name.replace("_sum", "_count")]
            stages.append((stage[1], f"{1e6 * seconds / count:,.0f}"))
    return section(
        "Throughput, one worker, 32 calls under way",
        throughputs(blocks),
        "\n".join(lines),
        table(("stage", "us a list"), stages),
        "Stages are wall time by the server's own metrics: a list computed with others counts "
        "theirs too.",
    )


def _shares(stages: Cell, comparison: Cell) -> dict[str, float]:
    """Computes the microseconds of CPU of each part of a call."""
    blocks = comparison["blocks"]
    known = {"gRPC: an empty handler": cpu_us(blocks["empty handler"])}
    known |= {
        name: value
        for name, value in stages.items()
        if name not in ("block_seconds", "measured_on")
    }
    rest = cpu_us(blocks["trimtab"]) - sum(known.values())
    return known | {"tasks, the tier, metrics, changing threads": rest}


def _stages(shares: Mapping[str, float]) -> str:
    whole = sum(shares.values())
    rows = [(name, f"{us:.0f}", f"{us / whole:.0%}") for name, us in shares.items()]
    rows.append(("together, as the server's processes took", f"{whole:.0f}", ""))
    return section("What a call is made of", table(("part", "us of CPU", "share"), rows), TRIED)


def _tail(cell: Cell) -> str:
    blocks = cell["blocks"]
    lines = []
    bars = (("two edits", "no edit", 1.10), ("two edits, 1 % malformed", "two edits", 1.05))
    for above, below, bar in bars:
        figure = ratio(*([p99_of(block) for block in blocks[side]] for side in (above, below)))
        verdict = figure.against(bar, at_least=False)
        lines.append(f"- p99 {above} / {below}: {figure}; the bar is {bar}: {verdict}.")
    return section(
        f"Tail at 60 % of capacity ({cell['rate']:,.0f} arrivals a second, open loop)",
        latencies(blocks),
        "\n".join(lines),
        lateness([block for of_one in blocks.values() for block in of_one]),
    )


def _idle(cell: Cell) -> str:
    lines = []
    for name, bar in (("warm", 1.5), ("cold", 4.0)):
        p50 = latency(cell["blocks"][name], "p50")
        verdict = "met" if p50 <= bar else "missed"
        lines.append(f"- {name} p50 {p50:.2f} ms; the bar is {bar} ms: {verdict}.")
    return section("One call at a time", latencies(cell["blocks"]), "\n".join(lines))


def _batch(cell: Cell) -> str:
    blocks = cell["blocks"]
    many = [256 * value for value in values(blocks["BatchRecommend"])]
    single = values(blocks["Recommend"])
    figure = ratio(many, single)
    return section(
        "BatchRecommend of 256 users",
        f"{np.median(many):,.0f} users a second, {np.median(single):,.0f} by Recommend: "
        f"{figure}; the bar is 5: {figure.against(5, at_least=True)}.",
    )


def _steering(cell: Cell) -> str:
    blocks = cell["blocks"]
    plain = values(blocks["no edit"])
    two = values(blocks["2 edits"])
    rows = []
    for name, of_one in blocks.items():
        own = values(of_one)
        rows.append((name, f"{np.median(own):,.0f}", ratio(plain, own), ratio(two, own)))
    columns = ("request", "calls a second", "time of one without edits", "of one with 2")
    return section("What steering costs, 32 calls under way", table(columns, rows))


def _metrics(cell: Cell) -> str:
    blocks = cell["blocks"]
    cost = ratio(values(blocks["metrics off"]), values(blocks["metrics on"]))
    verdict = cost.against(1.05, at_least=False)
    return section(
        "What metrics cost, 32 calls under way",
        throughputs(blocks),
        f"- Time of a call with metrics / without: {cost}; the bar is 1.05: {verdict}.",
    )


class Slope(NamedTuple):
    """Slope of a least squares line, with the half-width of its 95 % interval."""

    slope: float
    half_width: float

    def __str__(self) -> str:
        return f"{self.slope:+.2f} +- {self.half_width:.2f}"


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> Slope:
    """Fits a least squares line."""
    line = linregress(x, y)
    return Slope(float(line.slope), 1.96 * float(line.stderr))


def _soak(cell: Cell) -> str:
    minutes = cell["minutes"]
    figures = {
        "memory, MB": [minute["rss_mb"] for minute in minutes],
        "p99, ms": [minute["latency_ms"]["p99"] for minute in minutes],
    }
    settled = len(minutes) // 3
    hours = np.arange(len(minutes) - settled) / 60
    rows = []
    for name, series in figures.items():
        first = np.median(series[:settled])
        last = np.median(series[-settled:])
        slope = _slope(hours, np.array(series[settled:]))
        rows.append((name, f"{first:.1f}", f"{last:.1f}", slope))
    columns = ("figure", "first third", "last third", "slope an hour, from the second third on")
    title = f"{len(minutes)} minutes at 60 % of capacity"
    return section(
        f"{title} ({cell['rate']:.0f} arrivals a second, open loop)", table(columns, rows)
    )


def _deadlines(cell: Cell) -> str:
    codes = cell["codes"]
    return section(
        "Calls that live 5 ms, 200 under way",
        f"{sum(codes.values()):,} calls: {codes.get('0', 0):,} answered in time, by code {codes}; "
        f"lists computed, by the server's counter: {cell['computed']:,.0f}.",
    )


def _cancelled(cell: Cell) -> str:
    return section(
        "Calls that are cancelled after 5 ms, 200 at once",
        f"{cell['sent']:,} calls: {cell['answered']:,} answered before; lists computed, by the "
        f"server's counter: {cell['computed']:,.0f}.",
    )


def _load(cell: Cell) -> str:
    rows = []
    for point in cell["points"]:
        p = point["latency_ms"]
        rows.append(
            (
                point["share"],
                f"{point['rate']:,.0f}",
                *(f"{p[quantile]:.2f}" for quantile in ("p50", "p99", "p999")),
                f"{point['sent_late_p99_ms']:.2f}",
                faults([point]),
            )
        )
    columns = ("share", "arrivals a second", "p50 ms", "p99 ms", "p99.9 ms", "sent late, p99 ms")
    capacity = f"{cell['capacity']:,.0f}"
    return section(
        f"Latency against load (open loop; a closed one reaches {capacity} a second)",
        table((*columns, "not OK"), rows, texts=0),
        lateness(cell["points"]),
    )


def _workers(cell: Cell) -> str:
    blocks = cell["blocks"]
    one = values(blocks["1 worker"])
    lines = [
        f"- {name} / 1 worker: {ratio(values(of_one), one)}."
        for name, of_one in list(blocks.items())[1:]
    ]
    return section(
        "Workers, 32 calls under way on 16 connections",
        throughputs(blocks),
        "\n".join(lines),
        "The load shares both cores with the servers.",
    )


MAKERS: dict[str, Callable[[Cell], str]] = {
    "comparison": _comparison,
    "tail": _tail,
    "idle": _idle,
    "batch": _batch,
    "steering": _steering,
    "deadlines": _deadlines,
    "cancelled": _cancelled,
    "load": _load,
    "workers": _workers,
    "metrics": _metrics,
    "soak": _soak,
}
"""Parts of serving in the page's order, and what makes the section of each."""

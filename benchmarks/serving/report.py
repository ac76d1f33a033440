"""The report of serving.py's cells: tables of ratios with their intervals, and two plots."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import linregress

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

METHOD = """\
    make bench

The base case: 40,000 items in 200 clusters, d = 512, 4,096 neurons, k = 32, identity head, n = 20, two
edits (a concept and a neuron); 10,000 users with 20 to 100 items each, drawn Zipf-wise, their embeddings
cached in Redis and in the process; no cache of replies. One worker. The server and its embedded Valkey are
held to core 0, the load to core 1; lists are computed on the event loop (`--compute-threads 0`). The
bundle's index is the quickest that finds enough, as the exporter chooses it (docs/bundle.md); with
`--flat-limit 40000` every item is scored.

Requests are serialised beforehand and sent by `benchmarks/serving/load.py` over four connections, without a client
library: 36 us of CPU a call when it was measured at 8,000 a second, where grpc.aio took 99 and grpc's
synchronous futures 88. Sides of a comparison are measured in turn, A B A B. A ratio is the median of the
blocks' ratios with a 95 % bootstrap interval; where that spans the bar, the answer is inconclusive.
Latencies are the median block's; those of an open loop count from when a call should have been sent. Both
comparison servers answer the bytes of a real reply; the bare search is one query on the same index."""
TRIED = """\
Ours are each measured alone, 32 calls at a time; the last is what is left of the whole. Most of it is the
way between threads: by `perf stat` and `perf record` on the server, a call changed threads 18 times and
spent 217 us in the kernel, one of the empty handler 13 times and 132 us. gRPC's event engine, its poller and
the loop hand each call on to one another, here all on one core, and ours do that between batches that keep
the core for milliseconds.

What was tried, calls a second in the base case on a machine with little else to do:

- Lists computed together: a batch began in the turn of the loop after a call came in, and held 1.1 lists,
  because gRPC hands over a call a turn at most. Now it begins after some turns that brought none, and
  holds 22: 1,500 to 2,100.
- The store in the server's session: the kernel's autogroups let it wait .4 s beside the busy server, so a
  third of the users was read anew. p99 66 to 27 ms.
- Python's cycle collector walked through all kept users several times in ten seconds, for 80 ms each: a full
  collection is now rare. p99.9 130 to 30 ms.
- Durations kept as they come and sorted when Prometheus asks: its client's histograms took two locks for
  each of eight observations, and metrics a tenth of a call (1.079 of the time without, now 1.015).
- Computing in one or two threads instead of the loop: the same on one core. gRPC without its event engine
  (`GRPC_EXPERIMENTS`, no option for users): 465 to 435 us a call. Its optimisation target and the size of its
  reads: nothing.
- Beyond that it is many small steps in Python. The bare search leaves 37 us for all of them at the bar of
  .85, where parsing the request and building the reply alone take about as much."""
_STAGE = re.compile(r'trimtab_stage_seconds_sum{stage="(.*)"}')


def write_report(out: Path, report: Path, about: str = "") -> None:
    """Writes the report, its figures as .json and, if the part `load` was measured, its plot as .png.

    about says what was served where it is not the base case, out/remarks.md what else there is to
    know.
    """
    cells = {
        path.stem: json.loads(path.read_text()) for path in sorted((out / "cells").glob("*.json"))
    }
    lines = [
        "# Serving: measured",
        "",
        METHOD,
        "",
        *([about, ""] if about else []),
        *measured_on(cells),
        "",
    ]
    makers = {
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
    for name, make in makers.items():
        if name in cells:
            lines += [*make(cells[name]), ""]
    shares = (
        _shares(cells["stages"], cells["comparison"])
        if {"stages", "comparison"} <= cells.keys()
        else {}
    )
    if shares:
        lines += [*_stages(shares), ""]
    if shares or "load" in cells:
        plot(cells.get("load"), shares, report.with_suffix(".png"))
        lines += [
            f"![latency against load, and the parts of a call]({report.with_suffix('.png').name})",
            "",
        ]
    if (remarks := out / "remarks.md").is_file():
        lines += ["## Remarks of whoever measured", "", remarks.read_text().strip(), ""]
    missing = [name for name in (*makers, "stages") if name not in cells]
    if missing:
        lines += [f"Not measured: {', '.join(missing)}.", ""]
    report.write_text("\n".join(lines).rstrip() + "\n")
    report.with_suffix(".json").write_text(json.dumps(cells, indent=1) + "\n")


def _comparison(cell: dict[str, Any]) -> Iterator[str]:
    blocks = cell["blocks"]
    own = values(blocks["trimtab"])
    yield "## Throughput, one worker, 32 calls under way"
    yield ""
    yield from throughputs(blocks)
    yield ""
    for name, bar in (("bare search", 0.85), ("empty handler", 0.60)):
        found = ratio(own, values(blocks[name]))
        yield f"- trimtab / {name}: {found}; the bar is {bar}: {found.against(bar, at_least=True)}."
    reads = {
        result: cell["counted"].get(f'trimtab_user_tier_reads_total{{result="{result}"}}', 0.0)
        for result in ("hit", "miss", "bypass")
    }
    if total := sum(reads.values()):
        yield f"- Users found in the process: {reads['hit'] / total:.3f} of reads."
    yield ""
    yield "| stage | us a list |"
    yield "| --- | ---: |"
    for name, seconds in cell["counted"].items():
        if stage := _STAGE.fullmatch(name):
            count = cell["counted"][name.replace("_sum", "_count")]
            yield f"| {stage[1]} | {1e6 * seconds / count:,.0f} |"
    yield ""
    yield "Stages are wall time by the server's own metrics: a list computed with others counts theirs too."


def _shares(cell: dict[str, float], comparison: dict[str, Any]) -> dict[str, float]:
    """Microseconds of CPU of each part of a call."""
    blocks = comparison["blocks"]
    known = {"gRPC: an empty handler": cpu_us(blocks["empty handler"])} | {
        name: value for name, value in cell.items() if name not in ("block_seconds", "measured_on")
    }
    return known | {
        "tasks, the tier, metrics, changing threads": cpu_us(blocks["trimtab"])
        - sum(known.values())
    }


def _stages(shares: dict[str, float]) -> Iterator[str]:
    whole = sum(shares.values())
    yield "## What a call is made of"
    yield ""
    yield "| part | us of CPU | share |"
    yield "| --- | ---: | ---: |"
    for name, microseconds in shares.items():
        yield f"| {name} | {microseconds:.0f} | {microseconds / whole:.0%} |"
    yield f"| together, as the server's processes took | {whole:.0f} | |"
    yield ""
    yield TRIED


def _tail(cell: dict[str, Any]) -> Iterator[str]:
    blocks = cell["blocks"]
    yield f"## Tail at 60 % of capacity ({cell['rate']:,.0f} arrivals a second, open loop)"
    yield ""
    yield from latencies(blocks)
    yield ""
    bars = (("two edits", "no edit", 1.10), ("two edits, 1 % malformed", "two edits", 1.05))
    for above, below, bar in bars:
        sides = ([p99_of(block) for block in blocks[side]] for side in (above, below))
        found = ratio(*sides)
        yield f"- p99 {above} / {below}: {found}; the bar is {bar}: {found.against(bar, at_least=False)}."
    yield from lateness([block for of_one in blocks.values() for block in of_one])


def _idle(cell: dict[str, Any]) -> Iterator[str]:
    yield "## One call at a time"
    yield ""
    yield from latencies(cell["blocks"])
    yield ""
    for name, bar in (("warm", 1.5), ("cold", 4.0)):
        p50 = latency(cell["blocks"][name], "p50")
        yield f"- {name} p50 {p50:.2f} ms; the bar is {bar} ms: {'met' if p50 <= bar else 'missed'}."


def _batch(cell: dict[str, Any]) -> Iterator[str]:
    blocks = cell["blocks"]
    many = [256 * value for value in values(blocks["BatchRecommend"])]
    found = ratio(many, values(blocks["Recommend"]))
    yield "## BatchRecommend of 256 users"
    yield ""
    one = np.median(values(blocks["Recommend"]))
    yield (
        f"{np.median(many):,.0f} users a second, {one:,.0f} by Recommend: "
        f"{found}; the bar is 5: {found.against(5, at_least=True)}."
    )


def _steering(cell: dict[str, Any]) -> Iterator[str]:
    blocks = cell["blocks"]
    plain, two = values(blocks["no edit"]), values(blocks["2 edits"])
    yield "## What steering costs, 32 calls under way"
    yield ""
    yield "| request | calls a second | time of one without edits | of one with 2 |"
    yield "| --- | ---: | ---: | ---: |"
    for name, of_one in blocks.items():
        found = values(of_one)
        yield f"| {name} | {np.median(found):,.0f} | {ratio(plain, found)} | {ratio(two, found)} |"


def _metrics(cell: dict[str, Any]) -> Iterator[str]:
    blocks = cell["blocks"]
    cost = ratio(values(blocks["metrics off"]), values(blocks["metrics on"]))
    yield "## What metrics cost, 32 calls under way"
    yield ""
    yield from throughputs(blocks)
    yield ""
    verdict = cost.against(1.05, at_least=False)
    yield f"- Time of a call with metrics / without: {cost}; the bar is 1.05: {verdict}."


def _soak(cell: dict[str, Any]) -> Iterator[str]:
    minutes = cell["minutes"]
    memory = [minute["rss_mb"] for minute in minutes]
    p99 = [minute["latency_ms"]["p99"] for minute in minutes]
    settled = len(minutes) // 3
    hours = np.arange(len(minutes) - settled) / 60
    yield f"## {len(minutes)} minutes at 60 % of capacity ({cell['rate']:.0f} arrivals a second, open loop)"
    yield ""
    yield "| figure | first third | last third | slope an hour, from the second third on |"
    yield "| --- | ---: | ---: | ---: |"
    for name, found in (("memory, MB", memory), ("p99, ms", p99)):
        slope, error = _slope(hours, np.array(found[settled:]))
        first, last = np.median(found[:settled]), np.median(found[-settled:])
        yield f"| {name} | {first:.1f} | {last:.1f} | {slope:+.2f} +- {error:.2f} |"


def _slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Of the least squares line, with its 95 % half-width."""
    found = linregress(x, y)
    return float(found.slope), 1.96 * float(found.stderr)


def _deadlines(cell: dict[str, Any]) -> Iterator[str]:
    codes, computed = cell["codes"], cell["computed"]
    yield "## Calls that live 5 ms, 200 under way"
    yield ""
    yield (
        f"{sum(codes.values()):,} calls: {codes.get('0', 0):,} answered in time, by code {codes}; "
        f"lists computed, by the server's counter: {computed:,.0f}."
    )


def _cancelled(cell: dict[str, Any]) -> Iterator[str]:
    yield "## Calls that are cancelled after 5 ms, 200 at once"
    yield ""
    yield (
        f"{cell['sent']:,} calls: {cell['answered']:,} answered before; lists computed, by the server's "
        f"counter: {cell['computed']:,.0f}."
    )


def _load(cell: dict[str, Any]) -> Iterator[str]:
    yield f"## Latency against load (open loop; a closed one reaches {cell['capacity']:,.0f} a second)"
    yield ""
    yield "| share | arrivals a second | p50 ms | p99 ms | p99.9 ms | sent late, p99 ms | not OK |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for point in cell["points"]:
        p = point["latency_ms"]
        yield (
            f"| {point['share']} | {point['rate']:,.0f} | {p['p50']:.2f} | {p['p99']:.2f} | {p['p999']:.2f} "
            f"| {point['sent_late_p99_ms']:.2f} | {faults([point])} |"
        )
    yield from lateness(cell["points"])


def _workers(cell: dict[str, Any]) -> Iterator[str]:
    blocks = cell["blocks"]
    one = values(blocks["1 worker"])
    yield "## Workers, 32 calls under way on 16 connections"
    yield ""
    yield from throughputs(blocks)
    yield ""
    for name, of_one in list(blocks.items())[1:]:
        yield f"- {name} / 1 worker: {ratio(values(of_one), one)}."
    yield ""
    yield "The load shares both cores with the servers."

"""Puts a server under load and prints its figures as JSON.

    python -m benchmarks.serving.load --requests FILE ...


Closed loop (--concurrency): so many calls are always under way. Open loop (--rate): calls arrive as
a Poisson process whether the server keeps up or not, and a call's time counts from when it should
have been sent, so that waiting counts. One thread and no client library: a server under test shall
cost much more than its load. The program's own share of a core stands beside each figure; near 1,
the figure is the generator's own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import select
import socket
import struct
import time
from array import array
from bisect import bisect
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.serving.connections import Completion, Connection, Http1, Http2

BIN_RATIO = 1.02
"""Each bin of the histogram ends so much later than the one before."""
BIN_ENDS_MS = [0.01 * BIN_RATIO**place for place in range(800)]
"""From 10 us to 75 s."""
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
ANSWERED = ("0", "200")
"""Only such calls count as throughput and have a latency; the others are counted by their code."""
DRAIN_S = 5.0
MOST_UNDER_WAY = 10_000
"""Seconds behind the arrivals after which further calls are dropped and counted."""
_RECORD = struct.Struct("<BI")


class Request(NamedTuple):
    """A serialised request, and the kind that its figures are kept by."""

    kind: int
    body: bytes


class Sent(NamedTuple):
    """A call under way: when it was to be sent, and its kind."""

    due: float
    kind: int


@dataclass(frozen=True)
class LoadOptions:
    """The server, the requests, and the kind of load."""

    requests: Path
    """File of write_requests; requests are sent in its order, and again from its start."""
    target: str
    """host:port."""
    method: str
    """gRPC method, "/package.Service/Method"; with http1 the path."""
    seconds: float = 5.0
    """Calls count that were due within so long after the warm-up."""
    warmup: float = 0.5
    """Seconds of the same load before."""
    concurrency: int = 32
    """Calls under way at all times, where no rate is given."""
    rate: float = 0.0
    """Arrivals a second; 0 keeps `concurrency` calls under way."""
    connections: int = 4
    """TCP connections; HTTP/1.1 has one for each call under way."""
    protocol: str = "grpc"
    """grpc or http1."""
    content_type: str = "application/json"
    """Content type of http1's requests."""
    timeout_ms: int = 0
    """Deadline that each gRPC call carries; 0 is none."""
    offset: int = 0
    """Index of the first request to send."""
    seed: int = 0
    """Seed of the arrivals."""
    watch: tuple[int, ...] = ()
    """Process ids whose CPU time is reported, with all below them."""


@dataclass
class Seen:
    """Results of the calls of one kind."""

    milliseconds: array[float] = field(default_factory=lambda: array("d"))
    codes: Counter[str] = field(default_factory=Counter)

    def figures(self) -> dict[str, Any]:
        ordered = sorted(self.milliseconds)
        bins = Counter(bisect(BIN_ENDS_MS, value) for value in ordered)
        last = len(BIN_ENDS_MS) - 1
        return {
            "count": len(ordered),
            "codes": dict(self.codes),
            "latency_ms": {name: _quantile(ordered, share) for name, share in QUANTILES.items()}
            | {"max": ordered[-1] if ordered else None},
            "histogram_ms": [
                [round(BIN_ENDS_MS[min(at, last)], 4), bins[at]] for at in sorted(bins)
            ],
        }


def write_requests(path: Path, requests: Iterable[Request]) -> None:
    path.write_bytes(b"".join(_RECORD.pack(kind, len(body)) + body for kind, body in requests))


def read_requests(path: Path) -> Iterator[Request]:
    data = path.read_bytes()
    at = 0
    while at < len(data):
        kind, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size + length
        yield Request(kind, data[at - length : at])


class Generator:
    """The loop: sends what is due, takes what comes, and keeps the times."""

    def __init__(self, options: LoadOptions) -> None:
        self.options = options
        self._host, _, port = options.target.rpartition(":")
        self._port = int(port)
        requests = list(read_requests(options.requests))
        start = options.offset % len(requests)
        self._requests = requests[start:] + requests[:start]
        self._next = 0
        self._draw = random.Random(options.seed)
        self._due: deque[float] = deque()
        """Calls that have no connection yet."""
        self._under_way = 0
        self._open: dict[socket.socket, Connection[Sent]] = {}
        self._order: deque[Connection[Sent]] = deque()
        """Those that take calls; the next call goes to the first with room."""
        self._counted = (0.0, 0.0)
        self._ended = self._dropped = self._bytes = 0
        self._late: array[float] = array("d")
        self.seen: dict[int, Seen] = {}

    def run(self) -> dict[str, Any]:
        options = self.options
        clock = time.perf_counter
        many = options.connections if options.protocol == "grpc" else options.concurrency
        for _ in range(many):
            self._connect()
        begin = clock() + options.warmup
        self._counted = begin, begin + options.seconds
        arrival = clock() if options.rate else float("inf")
        if not options.rate:
            self._due.extend([clock()] * options.concurrency)
        cpu_from: tuple[float, ...] = ()
        while (now := clock()) < self._counted[1]:
            if not cpu_from and now >= begin:
                cpu_from = self._cpu_s()
            while arrival <= now:
                if self._under_way + len(self._due) < MOST_UNDER_WAY:
                    self._due.append(arrival)
                else:
                    self._dropped += 1
                arrival += self._draw.expovariate(options.rate)
            self._send(now)
            self._turn(min(arrival, self._counted[1]))
        cpu_s = [after - before for before, after in zip(cpu_from, self._cpu_s(), strict=True)]
        self._due.clear()
        until = clock() + DRAIN_S
        while self._under_way and clock() < until:
            self._turn(until)
        return self._figures(cpu_s)

    def _send(self, now: float) -> None:
        """Sends calls that are due, on one connection after the other, as far as they have room."""
        turned = 0
        while self._due and turned < len(self._order):
            connection = self._order[0]
            self._order.rotate(-1)
            turned += 1
            if connection.has_room():
                due = self._due.popleft()
                turned = 0
                kind, body = self._requests[self._next]
                self._next = (self._next + 1) % len(self._requests)
                connection.call(body, Sent(due, kind))
                self._under_way += 1
                self._late.append(now - due)

    def _turn(self, until: float) -> None:
        """Writes what is ready, and waits for replies, at most until then."""
        blocked = []
        for stream, connection in self._open.items():
            if connection.out:
                with suppress(BlockingIOError):
                    del connection.out[: stream.send(connection.out)]
                if connection.out:
                    blocked.append(stream)
        wait_s = max(0.0, until - time.perf_counter())
        for stream in select.select(list(self._open), blocked, [], wait_s)[0]:
            connection = self._open[stream]
            data = stream.recv(2**18)
            for ended in connection.receive(data) if data else connection.broken():
                self._note(ended)
            if (
                connection.closing and connection in self._order
            ):  # servers end connections that grew old
                self._order.remove(connection)
                self._connect()
            if not data:
                del self._open[stream]
                stream.close()

    def _note(self, ended: Completion[Sent]) -> None:
        now, (due, kind) = time.perf_counter(), ended.tag
        first, last = self._counted
        self._under_way -= 1
        if first <= due < last:
            seen = self.seen.setdefault(kind, Seen())
            seen.codes[ended.code] += 1
            if ended.code in ANSWERED:
                seen.milliseconds.append((now - due) * 1e3)
        if first <= now < last and ended.code in ANSWERED:
            self._ended += 1
            self._bytes += ended.size
        if not self.options.rate:
            self._due.append(now)

    def _connect(self) -> None:
        options = self.options
        stream = socket.create_connection((self._host, self._port))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setblocking(False)
        connection: Connection[Sent] = (
            Http2(options.target, options.method, options.timeout_ms)
            if options.protocol == "grpc"
            else Http1(options.target, options.method, options.content_type)
        )
        self._open[stream] = connection
        self._order.append(connection)

    def _cpu_s(self) -> tuple[float, ...]:
        """Reads the CPU time of this process, and of the watched ones."""
        return time.process_time(), sum(map(_tree_cpu_s, self.options.watch))

    def _figures(self, cpu_s: list[float]) -> dict[str, Any]:
        seconds = self.options.seconds
        whole = Seen()
        for seen in self.seen.values():
            whole.milliseconds.extend(seen.milliseconds)
            whole.codes.update(seen.codes)
        return {
            "throughput": self._ended / seconds,
            "reply_bytes": self._bytes / max(1, self._ended),
            **whole.figures(),
            "kinds": {kind: seen.figures() for kind, seen in sorted(self.seen.items())}
            if len(self.seen) > 1
            else {},
            "unanswered": self._under_way,
            "dropped": self._dropped,
            "sent_late_p99_ms": _quantile(sorted(late * 1e3 for late in self._late), 0.99),
            "generator_cpu_share": cpu_s[0] / seconds,
            "watched_cpu_share": cpu_s[1] / seconds,
        }


def _quantile(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def _tree_cpu_s(pid: int) -> float:
    """Reads the CPU time of a process and of its descendants."""
    folder = Path(f"/proc/{pid}")
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        below = chain.from_iterable(
            file.read_text().split() for file in folder.glob("task/*/children")
        )
        own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return own + sum(_tree_cpu_s(int(child)) for child in below)
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--watch", type=int, nargs="*", default=())
    for name, option in LoadOptions.__dataclass_fields__.items():
        if name not in ("requests", "target", "method", "watch"):
            parser.add_argument(
                f"--{name.replace('_', '-')}", type=type(option.default), default=option.default
            )
    arguments = vars(parser.parse_args())
    generator = Generator(LoadOptions(**arguments | {"watch": tuple(arguments["watch"])}))
    gc.freeze()
    gc.disable()
    print(json.dumps(generator.run()))


if __name__ == "__main__":
    main()

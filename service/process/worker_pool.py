"""Starts worker processes, restarts those that end, stops them, and adds up their metrics."""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from service.errors import StartError
from service.settings import Settings
from service.telemetry.exposition import ADDITIVE_TYPES, merged
from service.telemetry.metrics import Metrics

MIN_PAUSE_S = 0.1
"""Seconds before a worker is restarted for the first time; each further pause is twice as long."""

MAX_PAUSE_S = 30.0
"""Longest pause before a restart, in seconds."""

STEADY_S = 60.0
"""Seconds after which a worker counts as steady: it is restarted after the shortest pause."""

KILL_AFTER_S = 10.0
"""Seconds beyond drain_s until a worker that was asked to stop is killed."""

METRICS_TIMEOUT_S = 1.0
"""Seconds to wait for all workers' metrics; a worker that is slower counts as it last did."""


_log = logging.getLogger("trimtab")


class Task(NamedTuple):
    """What a worker process is to serve; the first message to it."""

    number: int
    settings: Settings


class Ready(NamedTuple):
    """A worker's first message if it serves."""

    bundle_id: str


class Refused(NamedTuple):
    """A worker's first message if it cannot serve."""

    reason: str


class WorkerError(StartError):
    """A worker cannot start; the message says why."""


class Worker:
    """One process, and the pipe to it.

    Attributes:
        process: The process.
        channel: Our end of the pipe.
        metrics: The worker's metrics as it last sent them.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, channel: "Connection[Any, Any]"
    ) -> None:
        self.process = process
        self.channel = channel
        self.metrics: list[Metric] = []

    @classmethod
    async def start(cls, task: Task) -> "Worker":
        """Starts a process and sends it its task."""
        ours, theirs = Pipe()
        with theirs:
            descriptor = theirs.fileno()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "service.process.worker", str(descriptor)),
                pass_fds=[descriptor],
                process_group=0,  # Ctrl-C reaches this process only, which passes it on
            )
        with suppress(OSError):
            ours.send(task)
        return cls(process, ours)

    async def first_message(self) -> Ready | Refused | None:
        """Waits for the worker's first message; None if it exited without one."""
        return await asyncio.to_thread(self._receive)

    def request_metrics(self) -> None:
        """Asks the worker for its metrics, and takes earlier answers that came too late."""
        with suppress(OSError):
            while self.channel.poll() and self._receive_metrics():
                pass
            self.channel.send(None)

    def await_metrics(self, until: float) -> None:
        """Takes the worker's metrics if they come before a time by time.monotonic()."""
        if self.channel.poll(max(0.0, until - time.monotonic())):
            self._receive_metrics()

    def signal(self, number: int) -> None:
        """Sends the process a signal, if it is alive."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def _receive_metrics(self) -> bool:
        message = self._receive()
        self.metrics = message or self.metrics
        return message is not None

    def _receive(self) -> Any:
        try:
            return self.channel.recv()
        except (EOFError, OSError):
            return None


class WorkerPool(Collector):
    """The worker processes of one server, and their metrics as one.

    Args:
        settings: Each worker's settings; `workers` is the size of the pool.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._restarts = Metrics(CollectorRegistry()).worker_restarts
        self._alive: dict[int, Worker] = {}
        self._serving: dict[int, Worker] = {}
        self._was_complete = False
        self._ended_counts: list[Metric] = []
        """Counts of the workers that have ended."""
        self._collecting = Lock()

    async def supervise(self, number: int, stop: asyncio.Event) -> None:
        """Runs one worker, and restarts it when it ends, until stop is set and it has drained.

        Raises:
            WorkerError: it cannot start, at the beginning or while no other worker serves.
        """
        pause_s = MIN_PAUSE_S
        while not stop.is_set():
            began = time.monotonic()
            ended = await self._run(number, stop)
            if stop.is_set():
                return
            self._restarts.inc()
            _log.error("worker %d %s; starting it again in %g s", number, ended, pause_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s)
            was_steady = time.monotonic() - began > STEADY_S
            pause_s = MIN_PAUSE_S if was_steady else min(2 * pause_s, MAX_PAUSE_S)

    def terminate(self) -> None:
        """Asks the workers to drain; those that take too long are killed."""
        for worker in self._alive.values():
            worker.signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(self._settings.drain_s + KILL_AFTER_S, self.kill)

    def kill(self) -> None:
        """Kills the workers."""
        for worker in self._alive.values():
            worker.signal(signal.SIGKILL)

    def collect(self) -> Iterable[Metric]:
        """Returns the sum of all workers' metrics, with the counts of those that have ended."""
        with self._collecting:
            serving = list(self._serving.values())
            until = time.monotonic() + METRICS_TIMEOUT_S
            for worker in serving:
                worker.request_metrics()
            for worker in serving:
                worker.await_metrics(until)
            families = [family for worker in serving for family in worker.metrics]
            return merged([*self._restarts.collect(), *self._ended_counts, *families])

    async def _run(self, number: int, stop: asyncio.Event) -> str:
        """Runs one process from start to end; returns how it ended, for the log.

        Raises:
            WorkerError: it never served, at the beginning or while no other worker serves.
        """
        try:
            worker = await Worker.start(Task(number, self._settings))
        except OSError as error:  # no memory, no processes left
            return self._not_started(str(error))
        self._alive[number] = worker
        try:
            if stop.is_set():  # terminate() came before the process was there
                worker.signal(signal.SIGTERM)
            message = await worker.first_message()
            if isinstance(message, Ready):
                self._add_serving(number, worker, message)
            status = await worker.process.wait()
            served = self._serving.pop(number, None)
            await asyncio.to_thread(self._keep_counts, worker)
        finally:
            del self._alive[number]
            worker.signal(signal.SIGKILL)
            await worker.process.wait()
        if served or stop.is_set():
            return f"ended with status {status}"
        if isinstance(message, Refused):
            return self._not_started(message.reason)
        return self._not_started(f"a worker ended with status {status} before it served")

    def _not_started(self, reason: str) -> str:
        """Returns why a worker could not start, for the log, if other workers serve."""
        if self._was_complete and self._serving:
            return f"cannot start: {reason}"
        raise WorkerError(reason)

    def _add_serving(self, number: int, worker: Worker, message: Ready) -> None:
        self._serving[number] = worker
        _log.info("worker %d serves, process %d", number, worker.process.pid)
        if len(self._serving) == self._settings.workers and not self._was_complete:
            self._was_complete = True
            _log.info(
                "serving bundle %s on %s with %d workers",
                message.bundle_id[:12],
                self._settings.listen,
                self._settings.workers,
            )

    def _keep_counts(self, worker: Worker) -> None:
        """Keeps an ended worker's counts, so that the sums do not fall."""
        with self._collecting:
            counts = (family for family in worker.metrics if family.type in ADDITIVE_TYPES)
            self._ended_counts = merged([*self._ended_counts, *counts])
            worker.channel.close()

"""Worker processes: started, started again when they end, stopped, and their metrics as one server's."""

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
from service.telemetry.exposition import COUNTING, merged
from service.telemetry.metrics import Metrics

SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0
"""Before a worker is started again: twice as long each time."""


STEADY_S = 60.0
"""A worker that lived so long is started again after the shortest pause."""


LAST_WORDS_S = 10.0
"""Beyond drain_s, until a worker that was asked to stop is killed."""


ANSWER_S = 1.0
"""For the workers' metrics; one that is slower counts as it last did."""


_log = logging.getLogger("trimtab")


class Task(NamedTuple):
    """What a worker is to do."""

    number: int
    settings: Settings


class Ready(NamedTuple):
    """A worker serves."""

    bundle_id: str


class Refused(NamedTuple):
    """A worker cannot serve."""

    reason: str


class WorkerError(StartError):
    """A worker cannot start; the message says why."""


class Worker:
    """One process, and the pipe to it."""

    def __init__(
        self, process: asyncio.subprocess.Process, channel: "Connection[Any, Any]"
    ) -> None:
        self.process, self.channel = process, channel
        self.metrics: list[Metric] = []
        """As it last told them."""

    @classmethod
    async def start(cls, task: Task) -> "Worker":
        """Starts a process with this task."""
        ours, theirs = Pipe()
        with theirs:
            end = theirs.fileno()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "service.process.worker", str(end)),
                pass_fds=[end],
                process_group=0,  # Ctrl-C reaches this process only, which passes it on
            )
        with suppress(OSError):
            ours.send(task)
        return cls(process, ours)

    async def first_word(self) -> Ready | Refused | None:
        """What came of its start; None if it ended without a word."""
        return await asyncio.to_thread(self._hear)

    def ask(self) -> None:
        """Asks for its metrics."""
        with suppress(OSError):
            while self.channel.poll() and self._take():  # an answer that came too late
                pass
            self.channel.send(None)

    def listen(self, until: float) -> None:
        """Takes its metrics if they come until then, by time.monotonic()."""
        if self.channel.poll(max(0.0, until - time.monotonic())):
            self._take()

    def signal(self, number: int) -> None:
        """Sends it a signal, if it lives."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def _take(self) -> bool:
        heard = self._hear()
        self.metrics = heard or self.metrics
        return heard is not None

    def _hear(self) -> Any:
        try:
            return self.channel.recv()
        except (EOFError, OSError):
            return None


class Crew(Collector):
    """The workers.

    Args:
        settings: Each worker's; `workers` says how many there are to be.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._restarts = Metrics(CollectorRegistry()).worker_restarts
        self._living: dict[int, Worker] = {}
        self._serving: dict[int, Worker] = {}
        self._was_complete = False
        self._counted: list[Metric] = []
        """By workers that ended."""
        self._telling = Lock()

    async def keep(self, number: int, stop: asyncio.Event) -> None:
        """Has a worker run, again if it ends, until stop is set and it has drained.

        Raises:
            WorkerError: it cannot start, at the beginning or while no other serves.
        """
        pause_s = SHORTEST_PAUSE_S
        while not stop.is_set():
            began = time.monotonic()
            ended = await self._run(number, stop)
            if stop.is_set():
                return
            self._restarts.inc()
            _log.error("worker %d %s; starting it again in %g s", number, ended, pause_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s)
            steady = time.monotonic() - began > STEADY_S
            pause_s = SHORTEST_PAUSE_S if steady else min(2 * pause_s, LONGEST_PAUSE_S)

    def terminate(self) -> None:
        """Has the workers drain; those that take too long for it are killed."""
        for worker in self._living.values():
            worker.signal(signal.SIGTERM)
        asyncio.get_running_loop().call_later(self._settings.drain_s + LAST_WORDS_S, self.kill)

    def kill(self) -> None:
        """Ends the workers at once."""
        for worker in self._living.values():
            worker.signal(signal.SIGKILL)

    def collect(self) -> Iterable[Metric]:
        """The metrics of all workers, and what those counted that ended, up to when they were last asked."""
        with self._telling:
            serving, until = list(self._serving.values()), time.monotonic() + ANSWER_S
            for worker in serving:
                worker.ask()
            for worker in serving:
                worker.listen(until)
            told = [family for worker in serving for family in worker.metrics]
            return merged([*self._restarts.collect(), *self._counted, *told])

    async def _run(self, number: int, stop: asyncio.Event) -> str:
        """One process from start to end; how it ended."""
        try:
            worker = self._living[number] = await Worker.start(Task(number, self._settings))
        except OSError as error:  # no memory, no processes left
            return self._not_started(str(error))
        try:
            if stop.is_set():  # too late to have been told
                worker.signal(signal.SIGTERM)
            word = await worker.first_word()
            if isinstance(word, Ready):
                self._join(number, worker, word)
            status = await worker.process.wait()
            served = self._serving.pop(number, None)
            await asyncio.to_thread(self._count, worker)
        finally:
            del self._living[number]
            worker.signal(signal.SIGKILL)
            await worker.process.wait()
        if served or stop.is_set():
            return f"ended with status {status}"
        if isinstance(word, Refused):
            return self._not_started(word.reason)
        return self._not_started(f"a worker ended with status {status} before it served")

    def _not_started(self, reason: str) -> str:
        """How a worker ended that never served, if there are others."""
        if self._was_complete and self._serving:
            return f"cannot start: {reason}"
        raise WorkerError(reason)

    def _join(self, number: int, worker: Worker, word: Ready) -> None:
        self._serving[number] = worker
        _log.info("worker %d serves, process %d", number, worker.process.pid)
        if len(self._serving) == self._settings.workers and not self._was_complete:
            self._was_complete = True
            listen, many = self._settings.listen, self._settings.workers
            _log.info("serving bundle %s on %s with %d workers", word.bundle_id[:12], listen, many)

    def _count(self, worker: Worker) -> None:
        """Keeps what a worker counted, so that the sums do not fall when it is gone."""
        with self._telling:
            kept = (family for family in worker.metrics if family.type in COUNTING)
            self._counted = merged([*self._counted, *kept])
            worker.channel.close()

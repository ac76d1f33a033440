"""Computations that arrive at about the same time are run together, and none waits by the clock for company.

A batch begins when the event loop has nothing else to do: when some of its turns have brought no
other computation. What arrives while others run is the next batch.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from service.batching.joint_calls import Computation, together
from service.errors import DeadlineExpired
from service.telemetry.metrics import Metrics

MAX_BATCH = 32
"""Computations run together: more make those at its start wait, and gain little."""


QUIET_TURNS = 6
"""Turns of the loop, a few microseconds each, that bring nothing before a batch begins.

gRPC hands over one call a turn at most, and its threads need the core in between. With 32 calls
under way on one core, no such turn gives batches of 1.1 lists, three 15 and six 22 to 29, with 1.4
times the throughput.
"""


T = TypeVar("T")


class _Job(NamedTuple):
    computation: Computation[Any]
    result: asyncio.Future[Any]
    remaining_s: Callable[[], float]


class Batcher:
    """Runs computations.

    Args:
        threads: Where; None for the event loop's own thread.
        parallel: Batches that run at once in the threads.
        metrics: Counts batches, and what was not computed.
    """

    def __init__(self, threads: Executor | None, parallel: int, metrics: Metrics) -> None:
        self._threads, self._metrics = threads, metrics
        self._waiting: deque[_Job] = deque()
        self._idle = parallel if threads else 1

    async def run(self, computation: Computation[T], remaining_s: Callable[[], float]) -> T:
        """The computation's result.

        Args:
            computation: Not begun if the caller is gone, or the deadline has passed, when its turn
                comes.
            remaining_s: Seconds until the deadline.

        Raises:
            DeadlineExpired: before it began.
        """
        loop = asyncio.get_running_loop()
        job = _Job(computation, loop.create_future(), remaining_s)
        self._waiting.append(job)
        if self._idle:
            self._idle -= 1
            self._gather()
        result: T = await job.result
        return result

    def _gather(self, before: int = 0, quiet: int = 0) -> None:
        """Starts once a batch is full, or nothing has joined it for a while; called each turn until then."""
        count = len(self._waiting)
        quiet = 0 if count > before else quiet + 1
        if quiet > QUIET_TURNS or count >= MAX_BATCH or not count:
            self._start()
        else:
            asyncio.get_running_loop().call_soon(self._gather, count, quiet)

    def _start(self) -> None:
        """Runs a batch, or becomes idle."""
        batch = self._next()
        if not batch:
            self._idle += 1
            return
        loop = asyncio.get_running_loop()
        computations = [job.computation for job in batch]
        if self._threads is None:
            self._finish(batch, together(computations))
            loop.call_soon(self._gather)  # after what came in meanwhile
            return
        running = loop.run_in_executor(self._threads, together, computations)
        running.add_done_callback(partial(self._go_on, batch))

    def _go_on(self, batch: list[_Job], done: asyncio.Future[list[Any]]) -> None:
        self._finish(batch, done.result())
        self._gather()

    def _next(self) -> list[_Job]:
        batch: list[_Job] = []
        while self._waiting and len(batch) < MAX_BATCH:
            job = self._waiting.popleft()
            if job.result.cancelled():
                self._metrics.not_computed.labels("cancelled").inc()
            elif job.remaining_s() <= 0:
                self._metrics.not_computed.labels("deadline").inc()
                job.result.set_exception(DeadlineExpired("the deadline passed before computing"))
            else:
                batch.append(job)
        if batch:
            self._metrics.batch_size.observe(len(batch))
        return batch

    @staticmethod
    def _finish(batch: list[_Job], ends: list[Any]) -> None:
        for job, end in zip(batch, ends, strict=True):
            if job.result.cancelled():
                continue
            if isinstance(end, Exception):
                job.result.set_exception(end)
            else:
                job.result.set_result(end)

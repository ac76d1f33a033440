"""Computations that arrive at about the same time are run together, and none waits for company.

While nothing runs, one starts at the end of the loop's present turn, with all that arrived in that turn. What
arrives while others run is the next batch.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple, TypeVar

from service.errors import DeadlineExpired
from service.metrics import Metrics
from service.together import Computation, together

MAX_BATCH = 32
"""Computations run together: more make those at its start wait, and gain little."""

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
            computation: Not begun if the caller is gone, or the deadline has passed, when its turn comes.
            remaining_s: Seconds until the deadline.

        Raises:
            DeadlineExpired: before it began.
        """
        loop = asyncio.get_running_loop()
        job = _Job(computation, loop.create_future(), remaining_s)
        self._waiting.append(job)
        if self._idle:
            self._idle -= 1
            loop.call_soon(self._start)
        result: T = await job.result
        return result

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
            loop.call_soon(self._start)  # after what came in meanwhile
            return
        running = loop.run_in_executor(self._threads, together, computations)
        running.add_done_callback(partial(self._go_on, batch))

    def _go_on(self, batch: list[_Job], done: asyncio.Future[list[Any]]) -> None:
        self._finish(batch, done.result())
        self._start()

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

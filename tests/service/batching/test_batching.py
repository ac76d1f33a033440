"""Tests joint computations, and the batches in which they run."""

import asyncio
from collections.abc import Generator, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.batching.joint_calls import run_alone, run_jointly
from service.batching.scheduler import MAX_BATCH, QUIET_ITERATIONS, Batcher
from service.errors import DeadlineExpired
from service.retrieval.exact_index import ExactIndex
from service.retrieval.strategy import Lookup, find_candidates
from service.telemetry.metrics import Metrics


@dataclass(frozen=True)
class Double:
    number: int
    stage: int
    calls: list[list[int]]

    @property
    def group(self) -> Hashable:
        return "double", self.stage

    def run_all(self, calls: Sequence["Double"]) -> list[int]:
        self.calls.append([call.number for call in calls])
        if any(call.number < 0 for call in calls):
            raise ValueError("expected no negative number, found one")
        return [2 * call.number for call in calls]


def quadruple(number: int, calls: list[list[int]], skip: bool = False) -> Generator[Any, Any, int]:
    once = number if skip else (yield Double(number, 0, calls))
    twice: int = yield Double(once, 1, calls)
    return twice


def test_calls_of_a_group_run_as_one_and_computations_ahead_wait_for_the_others() -> None:
    calls: list[list[int]] = []
    ends = run_jointly([quadruple(1, calls), quadruple(10, calls, skip=True), quadruple(3, calls)])
    assert ends == [4, 20, 12]
    assert calls[0] == [1, 3]
    assert sorted(calls[1]) == [2, 6, 10]
    assert len(calls) == 2


def test_an_error_of_one_computation_does_not_fail_the_others() -> None:
    first, wrong, last = run_jointly([quadruple(1, []), quadruple(-1, []), quadruple(3, [])])
    assert (first, last) == (4, 12)
    assert isinstance(wrong, ValueError)
    with pytest.raises(ValueError, match="expected no negative number"):
        run_alone(quadruple(-1, []))


def test_a_search_has_the_same_result_alone_and_jointly() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(3_000, 17)).astype(np.float32)
    index = ExactIndex(matrix)
    queries = rng.normal(size=(9, 16)).astype(np.float32)
    excluded = [rng.permutation(3_000)[: 20 * i] for i in range(9)]

    def search(i: int) -> Any:
        return find_candidates(index, matrix, queries[i : i + 1], 20, None, excluded[i])

    for i, candidates in enumerate(run_jointly([search(i) for i in range(9)])):
        assert not isinstance(candidates, Exception)
        assert candidates.items.tolist() == run_alone(search(i)).items.tolist()
    assert Lookup(index, queries, 129).depth == 256


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def count(metrics: Metrics, reason: str) -> float:
    return (
        metrics.registry.get_sample_value("trimtab_not_computed_total", {"reason": reason}) or 0.0
    )


@pytest.mark.parametrize("thread_count", [0, 2])
async def test_computations_of_one_loop_iteration_are_one_batch(
    metrics: Metrics, thread_count: int
) -> None:
    calls: list[list[int]] = []
    with ThreadPoolExecutor(2) as threads:
        batcher = Batcher(threads if thread_count else None, thread_count, metrics)
        asked = [batcher.run(quadruple(i, calls), lambda: 1.0) for i in range(MAX_BATCH + 1)]
        assert await asyncio.gather(*asked) == [4 * i for i in range(MAX_BATCH + 1)]
        assert max(len(numbers) for numbers in calls) == MAX_BATCH
        with pytest.raises(ValueError, match="expected no negative number"):
            await batcher.run(quadruple(-1, calls), lambda: 1.0)
        assert await batcher.run(quadruple(5, calls), lambda: 1.0) == 20


async def test_a_computation_that_nobody_awaits_is_dropped(metrics: Metrics) -> None:
    calls: list[list[int]] = []
    batcher = Batcher(None, 0, metrics)
    late = asyncio.create_task(batcher.run(quadruple(1, calls), lambda: 0.0))
    left = asyncio.create_task(batcher.run(quadruple(2, calls), lambda: 1.0))
    stays = asyncio.create_task(batcher.run(quadruple(3, calls), lambda: 1.0))
    asyncio.get_running_loop().call_soon(left.cancel)
    with pytest.raises(DeadlineExpired):
        await late
    assert await stays == 12
    assert left.cancelled()
    assert calls == [[3], [6]]
    assert count(metrics, "deadline") == count(metrics, "cancelled") == 1


async def test_arrivals_in_successive_iterations_are_one_batch_and_a_single_one_starts_soon(
    metrics: Metrics,
) -> None:
    calls: list[list[int]] = []
    batcher = Batcher(None, 0, metrics)
    asked = []
    for number in range(5):
        asked.append(asyncio.create_task(batcher.run(quadruple(number, calls), lambda: 1.0)))
        for _ in range(QUIET_ITERATIONS // 2):
            await asyncio.sleep(0)
    assert await asyncio.gather(*asked) == [0, 4, 8, 12, 16]
    assert calls[0] == [0, 1, 2, 3, 4]

    alone_now = asyncio.create_task(batcher.run(quadruple(7, calls), lambda: 1.0))
    for _ in range(QUIET_ITERATIONS + 4):
        await asyncio.sleep(0)
    assert alone_now.done()

"""Runs several computations so that their model and index calls are shared.

A computation is a generator. It yields a `SharedCall` where it needs a model or an index, receives
the call's result, and returns its own result. An exception of the call is raised where it was
yielded. So each computation reads as if it ran alone, while calls of one group, yielded by several
computations, run as one.
"""

from collections import defaultdict
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class SharedCall(Protocol):
    """A call that can run together with others of its group."""

    @property
    def stage(self) -> int:
        """Order of the call in a computation.

        Calls of a lower stage run first, so that computations that are behind catch up and share
        the later call.
        """

    @property
    def group(self) -> Hashable:
        """Calls of one group can run as one."""

    def run_all(self, calls: Sequence[Any]) -> Sequence[Any]:
        """Runs the calls of a group, of which this one is a member.

        Returns:
            One result for each call, in the order of the calls.
        """


Computation = Generator[SharedCall, Any, T]
"""Yields SharedCalls, receives their results, and returns a T."""


def run_jointly(computations: Sequence[Computation[T]]) -> list[T | Exception]:
    """Runs computations to their ends.

    Returns:
        For each computation its result, or the exception that it raised.
    """
    ends: dict[int, T | Exception] = {}
    pending: dict[int, SharedCall] = {}

    def advance(number: int, step: Callable[[], SharedCall]) -> None:
        try:
            pending[number] = step()
        except StopIteration as end:
            ends[number] = end.value
        except Exception as error:
            ends[number] = error

    for number, computation in enumerate(computations):
        advance(number, partial(next, computation))
    while pending:
        for numbers in _first_groups(pending):
            results = _run_group([pending.pop(number) for number in numbers])
            for number, result in zip(numbers, results, strict=True):
                failed = isinstance(result, Exception)
                step = computations[number].throw if failed else computations[number].send
                advance(number, partial(step, result))
    return [ends[number] for number in range(len(computations))]


def run_alone(computation: Computation[T]) -> T:
    """Runs one computation and returns its result, or raises its exception."""
    (end,) = run_jointly([computation])
    if isinstance(end, Exception):
        raise end
    return end


def _first_groups(pending: Mapping[int, SharedCall]) -> list[list[int]]:
    """Groups the calls of the lowest stage, by the numbers of their computations."""
    stage = min(call.stage for call in pending.values())
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for number, call in pending.items():
        if call.stage == stage:
            groups[call.group].append(number)
    return list(groups.values())


def _run_group(calls: Sequence[SharedCall]) -> Sequence[Any]:
    """Runs calls of one group; if that fails, runs each alone, so that one cannot fail others.

    Returns:
        For each call its result or its exception.
    """
    try:
        return calls[0].run_all(calls)
    except Exception as error:
        if len(calls) == 1:
            return [error]
        return [result for call in calls for result in _run_group([call])]

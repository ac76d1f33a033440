"""Computations side by side: what several need of one model or one index is had in one call.

A computation is a generator. It yields what it needs, is sent the answer, and returns its result; a
fault in answering is raised where it yielded. So each reads as if it were alone.
"""

from collections import defaultdict
from collections.abc import Callable, Generator, Hashable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Need(Protocol):
    """What a computation waits for; see needs.py."""

    @property
    def stage(self) -> int:
        """Those of a lower stage are met first, so that the others wait for company."""

    @property
    def kind(self) -> Hashable:
        """Needs of one kind can be met in one call."""

    def meet(self, needs: Sequence[Any]) -> Sequence[Any]:
        """The answers to needs of its kind, itself among them, in their order."""


Computation = Generator[Any, Any, T]
"""Yields Needs, is sent their answers, and returns a T."""


def together(computations: Sequence[Computation[T]]) -> list[T | Exception]:
    """Runs computations to their ends: for each its result, or what it raised."""
    ends: dict[int, T | Exception] = {}
    needs: dict[int, Need] = {}

    def proceed(number: int, step: Callable[[], Need]) -> None:
        try:
            needs[number] = step()
        except StopIteration as end:
            ends[number] = end.value
        except Exception as error:
            ends[number] = error

    for number, computation in enumerate(computations):
        proceed(number, partial(next, computation))
    while needs:
        stage = min(need.stage for need in needs.values())
        kinds: dict[Hashable, list[int]] = defaultdict(list)
        for number, need in needs.items():
            if need.stage == stage:
                kinds[need.kind].append(number)
        for numbers in kinds.values():
            answers = _met([needs.pop(number) for number in numbers])
            for number, answer in zip(numbers, answers, strict=True):
                fault = isinstance(answer, Exception)
                step = computations[number].throw if fault else computations[number].send
                proceed(number, partial(step, answer))
    return [ends[number] for number in range(len(computations))]


def alone(computation: Computation[T]) -> T:
    """The result of one computation; raises what it raised."""
    (end,) = together([computation])
    if isinstance(end, Exception):
        raise end
    return end


def _met(needs: Sequence[Need]) -> Sequence[Any]:
    """Answers to needs of one kind; a fault of one is not that of the others."""
    try:
        return needs[0].meet(needs)
    except Exception as error:
        if len(needs) == 1:
            return [error]
        return [answer for need in needs for answer in _met([need])]

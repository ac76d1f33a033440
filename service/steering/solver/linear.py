"""Scores that are linear in how far steering goes, and what the list of n does meanwhile. Pure.

Item i scores start_i + t slope_i for t from 0 to 1. All answers are whole multiples of 2^-24, which
a float32 can hold, and each is checked with the scores themselves: the list that is solved for is
the list returned.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.arrays import Bools, Ints
from service.steering.plan import Counts

Doubles = NDArray[np.float64]


STEPS = 2**24
"""t is a whole number of such parts."""


_ROUNDING = 1e-6
"""How far, relative to the largest score, a search's order may differ from the scores'."""


class Lines(NamedTuple):
    """Scores start + t slope, float64 [m] each, in the order of items' indices: ties go to the first."""

    start: Doubles
    slope: Doubles

    def at(self, t: float) -> Doubles:
        """The scores at t: [m]."""
        return self.start + t * self.slope

    def until(self, t: float) -> "Lines":
        """The part from 0 to t, stretched to [0, 1]; t is a power of two, so that no score changes."""
        return Lines(self.start, t * self.slope)

    def places(self) -> tuple[Ints, Ints]:
        """Each line's place just after 0 and just before 1, int32 [m]; lines that are one go by their row."""
        ends = self.at(1.0)
        places = np.empty((2, len(ends)), np.int32)
        places[0, np.lexsort((-ends, -self.start))] = np.arange(len(ends))
        places[1, np.lexsort((-self.start, -ends))] = np.arange(len(ends))
        return places[0], places[1]

    def take(self, rows: Ints) -> "Lines":
        """Some of the lines; rows ascend."""
        return Lines(self.start[rows], self.slope[rows])


def best(scores: Doubles, n: int) -> Ints:
    """Rows of the n largest, in order; ties go to the smaller row."""
    if n < len(scores):
        ordered = scores.copy()
        ordered.partition(-n)
        (rows,) = (scores >= ordered[-n]).nonzero()
    else:
        rows = np.arange(len(scores))
    in_order: Ints = rows[(-scores[rows]).argsort(kind="stable")]
    return in_order[:n]


def contenders(lines: Lines, n: int) -> Ints:
    """Rows that can be among the n best for some t, ascending, and few others.

    A line is out if n lines that start no lower all end above it: by linearity they are above it
    throughout.
    """
    order = np.argsort(-lines.start, kind="stable")
    ends = lines.at(1.0)[order]
    kept, size = [order[:n]], n
    highest = ends[:n]
    while size < len(order):
        block, block_ends = order[size : 2 * size], ends[size : 2 * size]
        high = block_ends >= highest.min()
        kept.append(block[high])
        highest = np.concatenate([highest, block_ends[high]])
        highest = np.partition(highest, -n)[-n:]
        size *= 2
    return np.sort(np.concatenate(kept))


def largest_within(price: Callable[[float], float], limit: float, steps: int = STEPS) -> float:
    """The largest t, in whole parts of 1 / steps, whose price is within the limit; the price grows with t."""
    if price(1.0) <= limit:
        return 1.0
    low, high = 0, steps
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if price(middle / steps) <= limit else (low, middle)
    return low / steps


def least_within(holds: Callable[[float], bool], end: float, steps: int) -> float:
    """The least t, to end / steps, if what holds at the end holds from somewhere on."""
    low, high = 0.0, end
    while high - low > end / steps:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def first_within(lines: Lines, members: Bools, n: int, counts: Counts) -> float | None:
    """The least t at which the number of members among the n best is right; None if it never is.

    The number may go up and down. It changes only where a member and another line cross.
    """

    def holds(t: float) -> bool:
        return counts.hold(int(members[best(lines.at(t), n)].sum()))

    if holds(0.0):
        return 0.0
    from_least = _reached(lines, members, n, counts.least)
    beyond_most = _reached(lines, members, n, counts.most + 1)
    times = np.union1d(from_least.times, beyond_most.times)
    right = from_least.at(times) & ~beyond_most.at(times)
    for time in times[right].tolist():
        step = int(np.ceil(time * STEPS))
        for t in (step / STEPS, (step + 1) / STEPS):  # where the lines meet, ties decide
            if t <= 1.0 and holds(t):
                return t
    return 1.0 if holds(1.0) else None


def enclosed(lines: Lines, n: int, start_bound: float, end_bound: float) -> bool:
    """Whether no line that starts at or below one bound and ends at or below the other gets among the n best.

    It scores at most (1 - t) start_bound + t end_bound. So at least n lines have to be above that
    for all t.
    """
    slack = _ROUNDING * max(np.abs(lines.start).max(), np.abs(lines.at(1.0)).max())
    above_start = lines.start - start_bound - slack
    above_end = lines.at(1.0) - end_bound - slack
    always = np.count_nonzero((above_start > 0) & (above_end > 0))
    falling, rising = (above_start > 0) & (above_end <= 0), (above_start <= 0) & (above_end > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = above_start / (above_start - above_end)
    falls, rises = np.sort(crossing[falling]), np.sort(crossing[rising])
    times = np.concatenate([[0.0], falls, [1.0]])
    above = (
        len(falls) - np.searchsorted(falls, times, "right") + np.searchsorted(rises, times, "left")
    )
    return bool(always + above.min() >= n)


def least_lift(scores: Doubles, members: Bools, n: int, counts: Counts) -> float:
    """A shift of the members' scores that gives the n best the right number of them, or nearly so.

    At most twice the smallest; between the two the list stays the same.

    Args:
        scores: float64 [m].
        members: bool [m].
        n: Length of the list, at most m.
        counts: What is right.
    """
    before = int(members[best(scores, n)].sum())
    if counts.hold(before):
        return 0.0
    ours, others = (np.sort(scores[side])[::-1] for side in (members, ~members))
    fewest, largest = max(0, n - len(others)), min(n, len(ours))
    raised = before < counts.least
    wanted = (
        range(counts.least, counts.most + 1) if raised else range(counts.most, counts.least - 1, -1)
    )
    for count in [*wanted, counts.least if raised else counts.most]:
        count = min(max(count, fewest), largest)
        # As many of ours as that, and no more, are above the last of the others that stay.
        low = (
            others[n - count] - ours[count - 1]
            if count > 0 and count > n - len(others)
            else -np.inf
        )
        high = others[n - count - 1] - ours[count] if count < n and count < len(ours) else np.inf
        if low < high:
            break
    end, inward = (low, 1.0) if raised else (high, -1.0)
    if not np.isfinite(end):
        return 0.0
    lift = float(np.float32(end + inward * min((high - low) / 2, abs(end) + 1e-6)))
    return lift if lift * inward > 0 else 0.0


class _Phases(NamedTuple):
    """A fact that is states[i] from times[i] on, until times[i + 1]."""

    times: Doubles
    states: Bools

    def at(self, times: Doubles) -> Bools:
        return self.states[np.searchsorted(self.times, times, "right") - 1]


def _reached(lines: Lines, members: Bools, n: int, count: int) -> _Phases:
    """When at least so many of the n best are members.

    That is: when that many members each have at most n - count of the other lines above them. So
    only those matter that can be among the count best members, or among the n - count + 1 best
    others.
    """
    if count <= 0 or count > n:
        return _Phases(np.zeros(1), np.array([count <= 0]))
    ours, others = np.flatnonzero(members), np.flatnonzero(~members)
    ours = ours[contenders(lines.take(ours), count)]
    others = others[contenders(lines.take(others), n - count + 1)]
    first, last = lines.places()
    leads_first = first[ours][:, None] < first[others]
    row, column = np.nonzero(leads_first != (last[ours][:, None] < last[others]))
    apart = lines.start[ours[row]] - lines.start[others[column]]
    times = -apart / (lines.slope[ours[row]] - lines.slope[others[column]])
    by_row = np.lexsort((times, row))
    row, times = row[by_row], times[by_row]
    change = np.where(leads_first[row, column[by_row]], 1, -1)
    above_first = np.count_nonzero(~leads_first, axis=1)
    running = np.cumsum(change)
    before_row = np.concatenate([[0], running])[np.searchsorted(row, np.arange(len(ours)))]
    above = above_first[row] + running - before_row[row]

    in_before, in_after = above - change <= n - count, above <= n - count
    toggles = np.flatnonzero(in_before != in_after)
    toggles = toggles[np.argsort(times[toggles], kind="stable")]
    inside = np.count_nonzero(above_first <= n - count) + np.cumsum(
        np.where(in_after[toggles], 1, -1)
    )
    at = np.concatenate([[0.0], times[toggles]])
    states = np.concatenate([[np.count_nonzero(above_first <= n - count)], inside]) >= count
    last_of_equals = np.append(at[1:] > at[:-1], True)
    return _Phases(at[last_of_equals], states[last_of_equals])

"""Finds strengths where scores are linear in t, and follows the list of the n best. Pure.

Item i scores start_i + t slope_i for t from 0 to 1. Every returned t is a whole multiple of 2^-24,
which a float32 can hold, and is checked with the scores themselves: the list that is solved for is
the list returned.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from service.arrays import AnyArray, Bools, Doubles, Ints
from service.steering.plan import Counts

STEPS = 2**24
"""Parts into which the path from t = 0 to t = 1 is divided."""

_ROUNDING = 1e-6
"""Largest difference, relative to the largest score, between an index's scores and exact ones."""


class LinearScores(NamedTuple):
    """Scores start + t slope, float64 [m] each, in the order of item indices.

    Equal scores are ordered by row.
    """

    start: Doubles
    slope: Doubles

    def at(self, t: float) -> Doubles:
        """Computes the scores at t: [m]."""
        return self.start + t * self.slope

    def until(self, t: float) -> "LinearScores":
        """Stretches the part from 0 to t to [0, 1]; t is a power of two, so scores stay exact."""
        return LinearScores(self.start, t * self.slope)

    def take(self, rows: Ints) -> "LinearScores":
        """Restricts the scores to ascending rows."""
        return LinearScores(self.start[rows], self.slope[rows])

    def ranks(self) -> "_Ranks":
        """Ranks the rows just after t = 0 and just before t = 1."""
        ends = self.at(1.0)
        first = np.empty(len(ends), np.int32)
        last = np.empty(len(ends), np.int32)
        first[np.lexsort((-ends, -self.start))] = np.arange(len(ends))
        last[np.lexsort((-self.start, -ends))] = np.arange(len(ends))
        return _Ranks(first, last)


class _Ranks(NamedTuple):
    """Ranks of rows just after t = 0 and just before t = 1: integers [m] each.

    Rows with equal scores throughout are ordered by row.
    """

    first: AnyArray
    last: AnyArray


def top_n(scores: Doubles, n: int) -> Ints:
    """Returns the rows of the n largest scores in order; equal scores are ordered by row."""
    if n < len(scores):
        ordered = scores.copy()
        ordered.partition(-n)
        (rows,) = (scores >= ordered[-n]).nonzero()
    else:
        rows = np.arange(len(scores))
    in_order: Ints = rows[(-scores[rows]).argsort(kind="stable")]
    return in_order[:n]


def contenders(lines: LinearScores, n: int) -> Ints:
    """Returns the rows that can be among the n best for some t, ascending, and few others.

    A row is left out if n rows that start no lower all end above it: by linearity they are above it
    for every t.
    """
    order = np.argsort(-lines.start, kind="stable")
    ends = lines.at(1.0)[order]
    kept = [order[:n]]
    size = n
    highest = ends[:n]
    while size < len(order):
        block = order[size : 2 * size]
        block_ends = ends[size : 2 * size]
        high = block_ends >= highest.min()
        kept.append(block[high])
        highest = np.concatenate([highest, block_ends[high]])
        highest = np.partition(highest, -n)[-n:]
        size *= 2
    return np.sort(np.concatenate(kept))


def largest_within(cost: Callable[[float], float], limit: float, steps: int = STEPS) -> float:
    """Finds the largest t, a multiple of 1 / steps, whose cost is within a limit.

    Args:
        cost: Grows with t.
        limit: The largest cost allowed.
        steps: Parts into which the path is divided.
    """
    if cost(1.0) <= limit:
        return 1.0
    low = 0
    high = steps
    while high - low > 1:
        middle = (low + high) // 2
        if cost(middle / steps) <= limit:
            low = middle
        else:
            high = middle
    return low / steps


def least_within(holds: Callable[[float], bool], end: float, steps: int) -> float:
    """Finds the least t, to end / steps, from which a condition holds up to the end.

    Args:
        holds: The condition; true at the end, and assumed to hold from some t on.
        end: The largest t.
        steps: Parts into which the path to the end is divided.
    """
    low = 0.0
    high = end
    while high - low > end / steps:
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def first_within(lines: LinearScores, members: Bools, n: int, counts: Counts) -> float | None:
    """Finds the least t with the right number of members among the n best; None if none has.

    The number may rise and fall. It changes only where a member and another row cross.

    Args:
        lines: Scores of m rows.
        members: bool [m].
        n: Length of the list.
        counts: The right numbers.
    """

    def holds(t: float) -> bool:
        return counts.hold(int(members[top_n(lines.at(t), n)].sum()))

    if holds(0.0):
        return 0.0
    from_least = _reached(lines, members, n, counts.least)
    beyond_most = _reached(lines, members, n, counts.most + 1)
    times = np.union1d(from_least.times, beyond_most.times)
    right = from_least.at(times) & ~beyond_most.at(times)
    for time in times[right].tolist():
        step = int(np.ceil(time * STEPS))
        for t in (step / STEPS, (step + 1) / STEPS):  # at a crossing, ties decide
            if t <= 1.0 and holds(t):
                return t
    return 1.0 if holds(1.0) else None


def enclosed(lines: LinearScores, n: int, start_bound: float, end_bound: float) -> bool:
    """Returns whether no other item can get among the n best rows.

    Another item scores at most (1 - t) start_bound + t end_bound. So at least n rows have to be
    above that for every t.

    Args:
        lines: Scores of the candidates.
        n: Length of the list.
        start_bound: Largest score of any other item at t = 0.
        end_bound: The same at t = 1.
    """
    slack = _ROUNDING * max(np.abs(lines.start).max(), np.abs(lines.at(1.0)).max())
    above_start = lines.start - start_bound - slack
    above_end = lines.at(1.0) - end_bound - slack
    always = np.count_nonzero((above_start > 0) & (above_end > 0))
    falling = (above_start > 0) & (above_end <= 0)
    rising = (above_start <= 0) & (above_end > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = above_start / (above_start - above_end)
    falls = np.sort(crossing[falling])
    rises = np.sort(crossing[rising])
    times = np.concatenate([[0.0], falls, [1.0]])
    fallen = np.searchsorted(falls, times, "right")
    risen = np.searchsorted(rises, times, "left")
    above = len(falls) - fallen + risen
    return bool(always + above.min() >= n)


def smallest_shift(scores: Doubles, members: Bools, n: int, counts: Counts) -> float:
    """Finds a shift of the members' scores that gives the n best the right number of members.

    If no shift does, the number is as near as possible. The shift is at most twice the smallest
    one; between the two the list stays the same.

    Args:
        scores: float64 [m].
        members: bool [m].
        n: Length of the list, at most m.
        counts: The right numbers.
    """
    count_before = int(members[top_n(scores, n)].sum())
    if counts.hold(count_before):
        return 0.0
    raises = count_before < counts.least
    inside, outside = (np.sort(scores[side])[::-1] for side in (members, ~members))
    for count in _wanted_counts(counts, len(inside), len(outside), n, raises=raises):
        low, high = _shifts_for(inside, outside, n, count)
        if low < high:
            break
    end = low if raises else high
    inward = 1.0 if raises else -1.0
    if not np.isfinite(end):
        return 0.0
    shift = float(np.float32(end + inward * min((high - low) / 2, abs(end) + 1e-6)))
    return shift if shift * inward > 0 else 0.0


def _wanted_counts(
    counts: Counts, member_count: int, other_count: int, n: int, *, raises: bool
) -> list[int]:
    """Lists the numbers of members to try, the nearest to the present number first.

    The last entry repeats the first, for the case that ties allow none of them.
    """
    fewest = max(0, n - other_count)
    most = min(n, member_count)
    if raises:
        wanted = [*range(counts.least, counts.most + 1), counts.least]
    else:
        wanted = [*range(counts.most, counts.least - 1, -1), counts.most]
    return [min(max(count, fewest), most) for count in wanted]


class _Shifts(NamedTuple):
    """An open interval of shifts; empty if low >= high."""

    low: float
    high: float


def _shifts_for(inside: Doubles, outside: Doubles, n: int, count: int) -> _Shifts:
    """Finds the shifts with which exactly count of the n best are members.

    Exactly that many members are then above the last of the others that stay in the list.

    Args:
        inside: Members' scores, descending.
        outside: The others' scores, descending.
        n: Length of the list.
        count: Wanted number of members.
    """
    low = -np.inf
    high = np.inf
    if count > 0 and count > n - len(outside):
        low = outside[n - count] - inside[count - 1]
    if count < n and count < len(inside):
        high = outside[n - count - 1] - inside[count]
    return _Shifts(low, high)


class _Phases(NamedTuple):
    """A condition over t: it is states[i] from times[i] until times[i + 1]."""

    times: Doubles
    states: Bools

    def at(self, times: Doubles) -> Bools:
        return self.states[np.searchsorted(self.times, times, "right") - 1]


def _reached(lines: LinearScores, members: Bools, n: int, count: int) -> _Phases:
    """Finds when at least count of the n best are members.

    That is the case when count members each have at most n - count of the other rows above them.
    So only rows matter that can be among the count best members, or among the n - count + 1 best
    others.
    """
    if count <= 0 or count > n:
        return _Phases(np.zeros(1), np.array([count <= 0]))
    inside = np.flatnonzero(members)
    inside = inside[contenders(lines.take(inside), count)]
    outside = np.flatnonzero(~members)
    outside = outside[contenders(lines.take(outside), n - count + 1)]

    # Each pair of a member and another row that changes order crosses once.
    ranks = lines.ranks()
    leads_first = ranks.first[inside][:, None] < ranks.first[outside]
    leads_last = ranks.last[inside][:, None] < ranks.last[outside]
    row, column = np.nonzero(leads_first != leads_last)
    apart = lines.start[inside[row]] - lines.start[outside[column]]
    times = -apart / (lines.slope[inside[row]] - lines.slope[outside[column]])
    by_row = np.lexsort((times, row))
    row = row[by_row]
    times = times[by_row]

    # For each member: how many others are above it after each of its crossings.
    change = np.where(leads_first[row, column[by_row]], 1, -1)
    above_first = np.count_nonzero(~leads_first, axis=1)
    running = np.cumsum(change)
    before_row = np.concatenate([[0], running])[np.searchsorted(row, np.arange(len(inside)))]
    above = above_first[row] + running - before_row[row]

    # A member counts while at most n - count others are above it.
    counted_before = above - change <= n - count
    counted_after = above <= n - count
    toggles = np.flatnonzero(counted_before != counted_after)
    toggles = toggles[np.argsort(times[toggles], kind="stable")]
    counted_first = np.count_nonzero(above_first <= n - count)
    counted = counted_first + np.cumsum(np.where(counted_after[toggles], 1, -1))
    at = np.concatenate([[0.0], times[toggles]])
    states = np.concatenate([[counted_first], counted]) >= count
    last_of_equals = np.append(at[1:] > at[:-1], True)
    return _Phases(at[last_of_equals], states[last_of_equals])

"""Tests lists on a path of linear scores against brute force over all crossings in fractions."""

from fractions import Fraction
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.steering.plan import Counts
from service.steering.solver.linear import (
    STEPS,
    LinearScores,
    contenders,
    enclosed,
    first_within,
    largest_within,
    top_n,
)

small = st.integers(-6, 6)
"""Small whole numbers: many lines are equal, or cross at the same t."""
fine = st.floats(-1, 1, width=16)
pairs = st.one_of(
    st.lists(st.tuples(small, small), min_size=1, max_size=14),
    st.lists(st.tuples(fine, fine), min_size=1, max_size=30),
)
families = pairs.map(lambda drawn: LinearScores(*np.array(drawn, np.float64).T))


def crossings(lines: LinearScores) -> list[Fraction]:
    """Finds each t in [0, 1] where two lines meet, and both ends, in order."""
    exact = [
        (Fraction(a), Fraction(b)) for a, b in zip(*(part.tolist() for part in lines), strict=True)
    ]
    times = {Fraction(0), Fraction(1)}
    for (a, b), (c, d) in combinations(exact, 2):
        if b != d and 0 <= (t := (a - c) / (d - b)) <= 1:
            times.add(t)
    return sorted(times)


def listed(lines: LinearScores, t: float, n: int) -> list[int]:
    """Finds the n best rows at t, naively."""
    scores = lines.at(t).tolist()
    return sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:n]


def distinct_steps(lines: LinearScores) -> list[int]:
    """Lists the steps at, before and after each crossing: together they see all possible lists."""
    near = {step + k for t in crossings(lines) for step in [int(t * STEPS)] for k in (-1, 0, 1, 2)}
    return sorted(step for step in near if 0 <= step <= STEPS)


@given(lines=families, n=st.integers(1, 16))
def test_the_best_rows_equal_those_of_a_full_sort(lines: LinearScores, n: int) -> None:
    for t in (0.0, 0.3, 1.0):
        assert top_n(lines.at(t), n).tolist() == listed(lines, t, n)


@given(lines=families, n=st.integers(1, 16))
def test_only_contenders_are_ever_listed(lines: LinearScores, n: int) -> None:
    kept = contenders(lines, n)
    for step in distinct_steps(lines):
        t = step / STEPS
        assert kept[top_n(lines.take(kept).at(t), n)].tolist() == listed(lines, t, n)


@settings(max_examples=200)
@given(lines=families, n=st.integers(1, 16), data=st.data())
def test_the_first_position_with_a_right_share_equals_brute_force(
    lines: LinearScores, n: int, data: st.DataObject
) -> None:
    size = len(lines.start)
    n = min(n, size)
    members = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    least = data.draw(st.integers(0, n))
    counts = Counts(least, data.draw(st.integers(least, n)))
    right = (
        step / STEPS
        for step in distinct_steps(lines)
        if counts.hold(sum(members[listed(lines, step / STEPS, n)]))
    )
    assert first_within(lines, members, n, counts) == next(right, None)


@given(lines=families, n=st.integers(1, 4), cut=st.integers(0, 12))
def test_no_other_line_gets_into_a_list_that_is_enclosed(
    lines: LinearScores, n: int, cut: int
) -> None:
    inside = contenders(lines, n)[: max(n, cut)]
    outside = np.setdiff1d(np.arange(len(lines.start)), inside)
    if not len(outside):
        return
    bounds = lines.start[outside].max(), lines.at(1.0)[outside].max()
    if enclosed(lines.take(inside), n, *bounds):
        for step in distinct_steps(lines):
            assert not set(listed(lines, step / STEPS, n)) & set(outside.tolist())


def test_well_separated_candidates_are_enclosed_and_too_few_are_not() -> None:
    lines = LinearScores(np.array([3.0, 2.9, 2.8, 0.5]), np.array([0.5, 0.4, 0.3, 0.0]))
    assert enclosed(lines, 3, 1.0, 2.0)
    assert not enclosed(lines, 4, 1.0, 2.0)
    crossing = LinearScores(np.array([3.0, 0.0]), np.array([-3.0, 3.0]))  # both are at 1.5 half way
    assert enclosed(crossing, 1, 1.0, 1.0)
    assert not enclosed(crossing, 1, 1.6, 1.6)


@given(first=st.integers(0, STEPS), limit=st.floats(0, 1))
def test_the_largest_step_within_a_limit_is_exact(first: int, limit: float) -> None:
    def cost(t: float) -> float:
        return 0.0 if t * STEPS <= first else 2.0

    assert largest_within(cost, limit) == first / STEPS

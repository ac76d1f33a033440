"""Tests budgets and target shares against brute force over whole catalogues.

Catalogues have ties, filters and exclusions, and lists are of any length.
"""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from service.engine.candidates import solve_candidates
from service.engine.query import Query
from service.ranking.measures import RELEVANCE_DEPTH, relevance_loss
from service.ranking.order import rank
from service.steering.plan import Bounds, Counts, Plan, TargetShare
from service.steering.solver.linear import (
    STEPS,
    LinearScores,
    first_within,
    smallest_shift,
    top_n,
)
from service.steering.solver.solution import ScoredCandidates
from service.steering.steer import Steered
from service.telemetry.timings import Timings

N_ITEMS = 300
D = 4


class BruteIndex:
    """An index that computes the inner products with all rows."""

    n_items = N_ITEMS
    over_fetch = 1.0
    can_select = False

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows

    def over_fetch_pays(self, _allowed: np.ndarray, _n: int) -> bool:
        return False

    def search(self, queries: np.ndarray, n: int) -> np.ndarray:
        scores = queries @ self._rows[:, :-1].T + self._rows[:, -1]
        return np.argsort(-scores, axis=1, kind="stable")[:, :n]


class World:
    """A random catalogue, user and steering.

    Args:
        seed: Of the random numbers.
        ties: True draws small whole numbers, so that many scores are equal.
        edits: Number of edits.
        head: True adds a nonlinear head.
    """

    def __init__(self, seed: int, *, ties: bool, edits: int, head: bool = False) -> None:
        rng = np.random.default_rng(seed)

        def draw(*shape: int) -> np.ndarray:
            values = rng.integers(-3, 4, size=shape) if ties else rng.normal(size=shape)
            return values.astype(np.float32)

        self.rows = draw(N_ITEMS, D + 1)
        self.z = draw(D)
        self.parts = [draw(D) for _ in range(edits)]
        self.masks = rng.random((3, N_ITEMS)) < rng.choice([0.02, 0.1, 0.4], size=(3, 1))
        self.allowed = rng.random(N_ITEMS) < 0.6 if rng.random() < 0.5 else None
        self.unwanted = np.flatnonzero(rng.random(N_ITEMS) < rng.choice([0.0, 0.1, 0.9]))
        H = rng.normal(size=(D, D)).astype(np.float32)
        self.bundle: Any = SimpleNamespace(
            items=self.rows,
            index=BruteIndex(self.rows),
            encoder=SimpleNamespace(has_head=head, head=lambda z, _: np.tanh(z @ H) if head else z),
            catalogue=SimpleNamespace(allowed=lambda _: self.allowed),
            gain_of=None,
        )
        allowed_mask = np.ones(N_ITEMS, bool) if self.allowed is None else self.allowed.copy()
        allowed_mask[self.unwanted] = False
        self.items = np.flatnonzero(allowed_mask)

    def target(
        self, concept: int, least: float, most: float, edit: int, *, own: bool
    ) -> TargetShare:
        return TargetShare(
            name=str(concept),
            members=self.masks[concept],
            bounds=Bounds(least, most),
            edits=(edit,),
            own=own,
        )

    def unsteered_count(self, concept: int, n: int) -> int:
        """Counts the concept's items in the list without steering."""
        plain = top_n(self.scores(np.zeros(len(self.parts))), n)
        return int(self.masks[concept][self.items[plain]].sum())

    def solve(self, n: int, *targets: TargetShare, budget: float | None = None) -> ScoredCandidates:
        plan = Plan(targets=tuple(targets), max_relevance_loss=budget)
        state: Any = SimpleNamespace(z=self.z, context=np.empty(0, np.float32))
        whole = Steered((), (), np.array(self.parts), None, None)
        query = Query(self.bundle, n, plan=plan)
        return solve_candidates(query, state, whole, self.unwanted, Timings())

    def lines(self, *weights: float) -> LinearScores:
        """Computes all allowed items' scores, from no steering to these weights of the edits."""
        rows = self.rows[self.items]
        slope = np.zeros(len(rows))
        for weight, part in zip(weights, self.parts, strict=True):
            slope += weight * np.vecdot(rows[:, :-1], part).astype(np.float64)
        return LinearScores(self.scores(np.zeros(len(weights))), slope)

    def whole(self) -> LinearScores:
        """Computes the same for all edits together, whose parts are one move of z."""
        rows = self.rows[self.items]
        move = sum(self.parts, np.zeros(D, np.float32))
        slope = np.vecdot(rows[:, :-1], move).astype(np.float64)
        return LinearScores(self.scores(np.zeros(len(self.parts))), slope)

    def scores(self, weights: Any) -> np.ndarray:
        """Computes the scores of all allowed items with the head: float64 [m]."""
        moved = self.z + sum(
            np.float32(w) * part for w, part in zip(weights, self.parts, strict=True)
        )
        query = self.bundle.encoder.head(moved[None], None)[0]
        rows = self.rows[self.items]
        scores: np.ndarray = np.vecdot(rows, np.append(query, np.float32(1))).astype(np.float64)
        return scores

    def loss(self, listed: np.ndarray) -> float:
        """Computes the relevance loss of a list of rows of `items`."""
        plain = self.scores(np.zeros(len(self.parts))).astype(np.float32)
        return relevance_loss(
            rank(self.items, plain, max(RELEVANCE_DEPTH, len(listed))).scores, plain[listed]
        )


def listed(solution: ScoredCandidates, n: int) -> list[int]:
    scores = np.asarray(solution.scores, np.float64)
    items: list[int] = solution.items[top_n(scores, n)].tolist()
    return items


seeds = st.integers(0, 10**6)
lengths = st.sampled_from([1, 2, 5, 20, 20, 60, N_ITEMS - 1, N_ITEMS + 5])


@settings(max_examples=80, deadline=None)
@given(seed=seeds, n=lengths, ties=st.booleans(), edits=st.integers(1, 3), budget=st.floats(0, 1.2))
def test_a_budget_allows_the_largest_fraction_over_the_whole_catalogue(
    seed: int, n: int, ties: bool, edits: int, budget: float
) -> None:
    world = World(seed, ties=ties, edits=edits)
    assume(len(world.items))
    solution = world.solve(n, budget=budget)
    lines = world.whole()
    t = solution.applied.fraction
    assert t * STEPS == int(t * STEPS)
    at_t = top_n(lines.at(t), n)
    assert listed(solution, n) == world.items[at_t].tolist()
    assert world.loss(at_t) <= budget
    if t < 1.0:
        assert world.loss(top_n(lines.at(t + 1 / STEPS), n)) > budget


@settings(max_examples=80, deadline=None)
@given(
    seed=seeds,
    n=lengths,
    ties=st.booleans(),
    own=st.booleans(),
    least=st.floats(0, 1),
    most=st.floats(0, 1),
)
def test_a_target_uses_the_least_strength_that_is_right_over_the_whole_catalogue(
    seed: int, n: int, ties: bool, own: bool, least: float, most: float
) -> None:
    world = World(seed, ties=ties, edits=2)
    assume(len(world.items) and least <= most)
    target = world.target(0, least, most, 1, own=own)
    solution = world.solve(n, target)
    (solved,) = solution.applied.targets
    members = world.masks[0][world.items]
    length = min(n, len(world.items))
    counts = target.bounds.counts(length, 0)
    base = world.lines(1.0, 0.0).at(1.0)

    def path(start: float, sign: float) -> LinearScores:
        toward = world.lines(0.0, sign).slope
        return LinearScores(base + world.lines(0.0, start).slope, toward)

    if solved.lift == 0.0:
        final = world.items[top_n(base + world.lines(0.0, solved.fraction).slope, length)]
        assert listed(solution, length) == final.tolist()
    start_count = int(members[top_n(path(target.rest, 1.0).start, length)].sum())
    if counts.hold(start_count):
        assert solved == (target.rest, 0.0)
        return
    sign = target.direction(start_count, counts)
    first = first_within(path(target.rest, sign), members, length, counts)
    if first is None:
        assert solved.lift != 0.0 or not counts.hold(
            int(world.masks[0][listed(solution, length)].sum())
        )
    else:
        moved = sign * (solved.fraction - target.rest)
        assert moved <= first
        # A part of the path is divided more finely than the whole. Where several lines meet, the
        # number may be right at the tie only.
        assert ties or moved > first - 1 / STEPS
        assert counts.hold(int(members[top_n(path(target.rest, sign).at(moved), length)].sum()))
        assert solved.lift == 0.0


@settings(max_examples=80, deadline=None)
@given(
    seed=seeds,
    n=lengths,
    head=st.booleans(),
    own=st.booleans(),
    least=st.floats(0, 1),
    most=st.floats(0, 1),
)
def test_a_target_is_met_whenever_the_catalogue_and_the_filter_allow_it(
    seed: int, n: int, head: bool, own: bool, least: float, most: float
) -> None:
    world = World(seed, ties=False, edits=2, head=head)
    assume(len(world.items) and least <= most)
    target = world.target(1, least, most, 1, own=own)
    length = min(n, len(world.items))
    carriers = world.masks[1]
    member_count = int(carriers[world.items].sum())
    items = listed(world.solve(n, target), length)
    counts = target.bounds.counts(length, 0)
    count = int(carriers[items].sum())
    fewest = max(0, length - (len(world.items) - member_count))
    largest = min(length, member_count)
    if max(fewest, counts.least) <= min(largest, counts.most):
        assert counts.hold(count)
    else:
        assert count == (largest if largest < counts.least else fewest)


@settings(max_examples=80, deadline=None)
@given(
    seed=seeds,
    n=lengths,
    head=st.booleans(),
    own=st.booleans(),
    least=st.floats(0, 3, width=32),
    most=st.none() | st.floats(0, 3, width=32),
)
def test_a_multiple_counts_the_items_of_the_unsteered_list(
    seed: int, n: int, head: bool, own: bool, least: float, most: float | None
) -> None:
    world = World(seed, ties=False, edits=2, head=head)
    assume(len(world.items) and least <= (np.inf if most is None else most))
    target = replace(
        world.target(0, 0.0, 1.0, 1, own=own), bounds=Bounds(least_times=least, most_times=most)
    )
    length = min(n, len(world.items))
    before = world.unsteered_count(0, length)
    member_count = int(world.masks[0][world.items].sum())
    fewest = max(0, length - (len(world.items) - member_count))
    largest = min(length, member_count)
    wanted = min(int(np.ceil(least * before - 1e-3)), length)
    allowed = length if most is None else max(wanted, int(np.floor(most * before + 1e-3)))
    count = int(world.masks[0][listed(world.solve(n, target), length)].sum())
    if max(fewest, wanted) <= min(largest, allowed):
        assert wanted <= count <= allowed
    else:
        assert count == (largest if largest < wanted else fewest)


def test_shares_and_multiples_hold_together_and_the_whole_list_is_always_enough() -> None:
    assert Bounds(0.1, 0.4, 2.0).counts(20, 3) == Counts(6, 8)
    assert Bounds(0.1, 0.4, 2.0).counts(20, 0) == Counts(2, 8)
    assert Bounds(most_times=0.5).counts(20, 5) == Counts(0, 2)
    assert Bounds(most_times=0.5).counts(20, 0) == Counts(0, 0)
    assert Bounds(least_times=2.0).counts(20, 15) == Counts(20, 20)
    assert Bounds(least_times=1e30).counts(20, 0) == Counts(0, 20)


@settings(max_examples=120, deadline=None)
@given(
    seed=seeds,
    n=st.sampled_from([10, 20, 40]),
    head=st.booleans(),
    least=st.sampled_from([0.3, 0.5]),
)
def test_two_targets_are_both_met_by_their_own_strengths(
    seed: int, n: int, head: bool, least: float
) -> None:
    """Solves two targets; at a half each, the list has no room for another item."""
    world = World(seed, ties=False, edits=3, head=head)
    both = [world.masks[concept][world.items].sum() for concept in (0, 1)]
    assume(len(world.items) >= n and min(both) >= least * n)
    targets = [world.target(concept, least, 1.0, 1 + concept, own=True) for concept in (0, 1)]
    items = listed(world.solve(n, *targets), n)
    for concept in (0, 1):
        assert world.masks[concept][items].mean() >= least


def test_concepts_that_compete_for_the_last_rank_need_no_lift() -> None:
    """Raises all strengths together: solved in turn only, each stays just below the other."""
    world = World(0, ties=False, edits=2)
    world.z = np.eye(4, dtype=np.float32)[0]
    world.parts = list(np.eye(4, dtype=np.float32)[1:3])
    world.rows[:] = 0.0
    world.rows[:, 0] = np.linspace(0.5, 0.0, N_ITEMS)
    world.rows[3, :3] = (1.0, 1.0, 0.0)
    world.rows[5, :3] = (0.9, 0.0, 1.0)
    world.masks[:] = False
    world.masks[0, 3] = world.masks[1, 5] = True
    world.allowed = None
    world.unwanted = np.empty(0, np.int64)
    solution = world.solve(1, *(world.target(j, 0.0, 0.0, j, own=True) for j in (0, 1)))
    assert listed(solution, 1) == [0]
    first, second = solution.applied.targets
    assert first.lift == second.lift == 0.0
    assert -0.51 < first.fraction < -0.5
    assert -0.43 < second.fraction < -0.4


def test_lifts_that_compete_for_the_whole_list_rise_above_all_other_items() -> None:
    """Pushes all lifts further: corrected in turn only, each just passes the other for ever."""
    world = World(0, ties=False, edits=2)
    world.z = np.eye(4, dtype=np.float32)[0]
    world.parts = [np.zeros(4, np.float32)] * 2
    world.rows[:] = 0.0
    world.masks[:] = False
    world.masks[0, 1:40:2] = world.masks[1, 2:40:2] = True
    world.rows[1:40, 0] = 1.0 - np.arange(39) / 1000
    world.rows[0, 0] = 100.0
    world.allowed = None
    world.unwanted = np.empty(0, np.int64)
    world.items = np.arange(N_ITEMS)
    solution = world.solve(
        20, *(world.target(concept, 0.5, 1.0, concept, own=True) for concept in (0, 1))
    )
    listing = listed(solution, 20)
    assert [world.masks[concept][listing].sum() for concept in (0, 1)] == [10, 10]
    lifts = [strength.lift for strength in solution.applied.targets]
    assert min(lifts) > 99
    assert lifts == [float(np.float32(lift)) for lift in lifts]  # as a page token holds them


@settings(max_examples=40, deadline=None)
@given(seed=seeds, budget=st.floats(0, 0.3), least=st.floats(0, 1), ties=st.booleans())
def test_the_budget_has_priority_over_the_targets(
    seed: int, budget: float, least: float, ties: bool
) -> None:
    world = World(seed, ties=ties, edits=2)
    assume(len(world.items) >= 20)
    target = world.target(0, least, 1.0, 1, own=True)
    alone = world.solve(20, target)
    within = world.solve(20, target, budget=budget)
    rows = [np.searchsorted(world.items, listed(solution, 20)) for solution in (alone, within)]
    assert world.loss(rows[1]) <= budget
    if world.loss(rows[0]) <= budget:
        assert within.applied == alone.applied
    else:
        assert within.applied.fraction < 1.0


def test_the_fraction_with_a_nonlinear_head_is_close_to_that_of_a_fine_grid() -> None:
    short = []
    for seed in range(30):
        world = World(seed, ties=False, edits=2, head=True)
        if len(world.items) < 100:
            continue
        solution = world.solve(20, budget=0.1)
        grid = np.arange(0, 1_001) / 1_000
        losses = [world.loss(top_n(world.scores([t, t]), 20)) for t in grid.tolist()]
        within = grid[np.array(losses) <= 0.1]
        rows = np.searchsorted(world.items, listed(solution, 20))
        assert world.loss(rows) <= 0.1
        short.append(within.max() - solution.applied.fraction)
    assert len(short) > 10
    assert np.quantile(short, 0.9) <= 0.002


@given(
    scores=st.lists(st.floats(-4, 4, width=16), min_size=1, max_size=30, unique=True),
    n=st.integers(1, 30),
    data=st.data(),
)
def test_the_smallest_shift_gives_the_right_number_and_half_of_it_does_not(
    scores: list[float], n: int, data: st.DataObject
) -> None:
    size = len(scores)
    n = min(n, size)
    members = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    fewest = max(0, n - int((~members).sum()))
    largest = min(n, int(members.sum()))
    count = data.draw(st.integers(fewest, largest))
    exact = np.array(scores)

    def tally(lift: float) -> int:
        return int(members[top_n(exact + lift * members, n)].sum())

    lift = smallest_shift(exact, members, n, Counts(count, count))
    if tally(0.0) == count:
        return
    assert tally(lift) == count
    assert tally(0.49 * lift) != count or abs(lift) < 1e-5


@pytest.mark.parametrize("share", [0.1, 0.3, 0.35, 1 / 3, 0.7])
def test_shares_rounded_to_float32_mean_whole_items(share: float) -> None:
    exact = float(np.float32(share))
    for n in (10, 20, 100, 1_000):
        counts = Bounds(exact, exact).counts(n, 0)
        assert counts.least == int(np.ceil(round(share * n, 6)))
        assert counts.most >= counts.least

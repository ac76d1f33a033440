"""How far steering goes: the strengths that meet target shares, and the fraction that a budget allows.

With an identity head and no boost both are exact over the whole catalogue: candidates are those at
the ends of the way, more of them until a bound proves that no other item can be listed. The list
solved for is the list returned, whatever is solved, so that what the report says of it holds.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from service.arrays import Bools, Ints, distinct
from service.batching.joint_calls import run_alone
from service.engine.query import Query
from service.ranking.measures import RELEVANCE_DEPTH, relevance_loss
from service.ranking.order import rank
from service.retrieval.strategy import find_candidates
from service.steering.boost import PLACES, better_off, boosts_of
from service.steering.lift import _carriers
from service.steering.plan import WHOLLY, Applied, TargetStrength
from service.steering.solver.linear import (
    STEPS,
    Doubles,
    Lines,
    best,
    enclosed,
    largest_within,
    least_lift,
    least_within,
)
from service.steering.solver.path import Way
from service.steering.solver.scores import HEAD_STEPS, Field
from service.steering.solver.search_points import Mark, anchors_of, moves_by_edit, moves_of, stops
from service.steering.solver.solution import Found
from service.steering.state import UserState
from service.steering.steer import Steered
from service.telemetry.timings import Timings

LEAST_DEPTH = 160
"""Candidates of each anchor at first."""


WIDENING = 2
"""How many times as many, whenever nothing could be proven."""


ROUNDS = 3
"""Times that each of several targets is solved while the others stay."""


LIFTS = 50
"""Times that lifts are put right in turn: each may push another concept's items out of the list."""


REPAIRS = 5
"""The same after all of them were pushed further."""


SPANS = tuple(2.0**power for power in range(-7, 1))
"""Fractions of the largest strength that are tried first: doubled until the share is right."""


def solve(
    query: Query, state: UserState, whole: Steered, unwanted: Ints, timings: Timings
) -> Found:
    """Finds how far the plan's steering goes, and the candidates of the list that comes of it.

    Args:
        query: With targets, a budget, or both.
        state: The user's.
        whole: The steering at full strength.
        unwanted: Item indices that are not to be listed.
        timings: Gets the stages' times.
    """
    solver = _Solver(query, state, whole, unwanted, timings)
    depth = max(LEAST_DEPTH, 2 * query.n)
    while True:
        solver.look(depth)
        goals, settings = solver.meet_targets()
        settings = solver.lift(settings)
        fraction = solver.afford(settings)
        proven = solver.is_proven(goals, settings, fraction)
        timings.lap("solve")
        if proven:
            return solver.found(settings, fraction)
        depth *= WIDENING


class _Solver:
    """One query's field, and the steps of its solution."""

    def __init__(
        self, query: Query, state: UserState, whole: Steered, unwanted: Ints, timings: Timings
    ) -> None:
        catalogue = query.bundle.catalogue
        self._query, self._state, self._unwanted, self._timings = query, state, unwanted, timings
        self._targets = query.plan.targets
        self._moves = moves_of(query.plan, whole, len(state.z))
        self._anchors = anchors_of(self._targets, self._moves, query.bundle.encoder.has_head)
        self._concepts = [_carriers(query, target) for target in self._targets]
        move_of = moves_by_edit(query.plan)
        self._boosts = [
            (move_of.get(boost.position, 0), boost) for boost in boosts_of(query, WHOLLY)
        ]
        self._allowed = catalogue.allowed(query.item_filter)
        self._degraded = False
        self._rest = np.zeros(1 + 2 * len(self._targets))
        self._rest[0] = 1.0
        self._least = np.zeros_like(self._rest)
        for j, target in enumerate(self._targets):
            self._rest[1 + j], self._least[1 + j] = target.rest, min(target.signs[-1], 0.0)

    def look(self, depth: int) -> None:
        """Makes the field of at least so many candidates of each anchor, of the first what losses need."""
        settings, count = self._anchors.settings, len(self._anchors.settings)
        compares = self._query.compares or self._query.plan.max_relevance_loss is not None
        deep = max(depth, RELEVANCE_DEPTH if compares else 0, PLACES if self._boosts else 0)
        self._depths = [deep] + [depth] * (count - 1)
        looks = (
            [(settings[:1], deep), (settings[1:], depth)] if deep > depth else [(settings, depth)]
        )
        items = distinct(*(self._search(some, n, self._allowed) for some, n in looks if len(some)))
        self._is_whole = len(items) < deep
        for some in better_off([boost for _, boost in self._boosts]) if self._boosts else ():
            items = distinct(items, self._search(settings, depth, self._within(some)))
        self._n = min(self._query.n, len(items))
        self._set_field(items)
        unsteered = self._tally(np.zeros(1 + 2 * len(self._targets)))
        self._counts = [
            target.bounds.counts(self._n, count)
            for target, count in zip(self._targets, unsteered, strict=True)
        ]

    def meet_targets(self) -> tuple[Doubles, Doubles]:
        """The furthest settings that had to be looked at, and those that meet the targets, or nearly so.

        Each target is solved while the others stay, until none moves, for a bounded number of
        rounds. Then all grow.
        """
        settings = self._rest.copy()
        goals = settings.copy()
        for _ in range(ROUNDS):
            before = settings.copy()
            for j in range(len(self._targets)):
                goals[1 + j], settings[1 + j] = self._meet(j, settings)
            if len(self._targets) == 1 or (settings == before).all():
                break
        grown = self._grow(settings)
        return goals if grown is settings else grown, grown

    def lift(self, settings: Doubles) -> Doubles:
        """Lifts the items of concepts whose shares no strength meets, just as far as that needs.

        Lifts of several concepts that contend for the list's end may creep up past each other for
        ever: then all are pushed further than the rest, and put right from there. Those are not the
            least that would do.
        """
        if not self._wrong(settings):
            return settings
        self._extend(settings)
        settings = self._lift_in_turn(settings, LIFTS)
        if not self._fit_together() or not self._wrong(settings):
            return settings
        lifts = settings[1 + len(self._targets) :]
        reach = np.sign(lifts) * np.ptp(self._field.scores(settings))
        for span in SPANS:
            pushed = settings.copy()
            pushed[1 + len(self._targets) :] += span * reach
            pushed = pushed.astype(np.float32).astype(np.float64)  # as page tokens hold it
            pushed = self._lift_in_turn(pushed, REPAIRS)
            if not self._wrong(pushed):
                return pushed
        return settings

    def _fit_together(self) -> bool:
        """Whether the list has room for all that several targets ask for."""
        places = np.sort(self._field.members.sum(axis=0))[::-1][
            : self._n
        ]  # items of two concepts serve both
        return (
            len(self._targets) > 1 and sum(counts.least for counts in self._counts) <= places.sum()
        )

    def _lift_in_turn(self, settings: Doubles, rounds: int) -> Doubles:
        settings = settings.copy()
        for _ in range(rounds):
            wrong = self._wrong(settings)
            if not wrong:
                break
            for j in wrong:
                settings[self._lift_of(j)] = 0.0
                scores, members = self._field.scores(settings), self._field.members[j]
                settings[self._lift_of(j)] = least_lift(scores, members, self._n, self._counts[j])
        return settings

    def afford(self, settings: Doubles) -> float:
        """The largest fraction of the settings that the budget allows."""
        limit, field = self._query.plan.max_relevance_loss, self._field
        if limit is None:
            return 1.0
        unsteered = rank(field.items, field.plain, max(self._n, RELEVANCE_DEPTH)).scores
        way = Way(field, np.zeros_like(settings), settings, self._n)
        return largest_within(
            lambda t: relevance_loss(unsteered, field.plain[way.listed(t)]),
            limit,
            STEPS if field.is_linear else HEAD_STEPS,
        )

    def is_proven(self, goals: Doubles, settings: Doubles, fraction: float) -> bool:
        """Whether no item outside the field can get into any list on the ways that were solved.

        Lifts are left out: they act on the candidates and on the best items of their concepts.
        There is no bound for several targets' strengths that add up to more than the largest of
        one, nor for other heads.
        """
        if self._is_whole or not self._field.is_linear:
            return True
        cuts = [
            float(np.partition(self._field.scores(anchor), -depth)[-depth])
            for anchor, depth in zip(self._anchors.settings, self._depths, strict=True)
        ]
        return all(self._encloses(way) for way in self._ways(goals, settings, fraction, cuts))

    def found(self, settings: Doubles, fraction: float) -> Found:
        """The candidates with their scores, and what was solved."""
        scores = self._field.scores(settings, fraction)
        _, *solved = settings.tolist()
        count = len(self._targets)
        strengths = zip(solved[:count], solved[count:], strict=True)
        applied = Applied(fraction, tuple(TargetStrength(*strength) for strength in strengths))
        boosted = self._field.boosted(settings, fraction)
        return Found(self._field.items, self._field.plain, scores, applied, self._degraded, boosted)

    def _meet(self, j: int, settings: Doubles) -> tuple[float, float]:
        """How far target j's strength was looked for, and what it is to be."""
        target, counts = self._targets[j], self._counts[j]
        start = settings.copy()
        start[1 + j] = target.rest
        count = self._tally(start)[j]
        if counts.hold(count):
            return target.rest, target.rest
        end = start.copy()
        end[1 + j] += target.direction(count, counts)
        spans = (
            SPANS if target.rest == 0.0 else SPANS[-1:]
        )  # beside 1, parts of a span are beyond a float32
        way = Way(self._field, start, end, self._n)
        t, is_met = way.first(self._field.members[j], counts, spans)
        strength = start[1 + j] + t * (end[1 + j] - start[1 + j])
        return strength if is_met else end[1 + j], strength

    def _grow(self, settings: Doubles) -> Doubles:
        """Strengthens all of several targets by as much until all are right, if they ever are.

        Solved in turn, each has the least strength that is enough beside the others. Where items of
        two concepts contend for the end of the list, that puts each just below the other, round
        after round; both have to fall below the next item of neither.
        """
        if len(self._targets) < 2 or not (wrong := self._wrong(settings)):
            return settings
        signs, tally = np.sign(settings - self._rest), self._tally(settings)
        for j in wrong:
            if not signs[1 + j]:
                signs[1 + j] = self._targets[j].direction(tally[j], self._counts[j])

        def grown(by: float) -> Doubles:
            by = round(by * STEPS) / STEPS  # what a float32 can hold
            moved: Doubles = np.clip(settings + by * signs, self._least, 1.0)
            return moved

        for span in SPANS:
            if not self._wrong(grown(span)):
                return grown(least_within(lambda by: not self._wrong(grown(by)), span, HEAD_STEPS))
        return settings

    def _wrong(self, settings: Doubles) -> list[int]:
        """The targets that are not met."""
        tally = self._tally(settings)
        return [j for j, counts in enumerate(self._counts) if not counts.hold(tally[j])]

    def _tally(self, settings: Doubles) -> list[int]:
        """How many items of each target's concept are in the list."""
        if not self._targets:
            return []
        listed = best(self._field.scores(settings), self._n)
        return [int(members[listed].sum()) for members in self._field.members]

    def _extend(self, settings: Doubles) -> None:
        """Adds the best items of each target's concept, and the best others, to the field."""
        items = [
            self._search(settings[None], self._n, self._within(side))
            for concept in self._concepts
            for side in (concept, ~concept)
        ]
        self._set_field(distinct(self._field.items, *items))

    def _set_field(self, items: Ints) -> None:
        self._timings.lap("solve")
        self._field = Field(
            self._query.bundle, self._state, self._moves, self._concepts, self._boosts, items
        )
        self._timings.lap("rank")

    def _within(self, items: Bools) -> Bools:
        return items if self._allowed is None else self._allowed & items

    def _search(self, settings: Doubles, n: int, allowed: Bools | None) -> Ints:
        bundle, moves = self._query.bundle, self._moves
        moved = self._state.z + settings[:, : len(moves)].astype(np.float32) @ moves
        queries = bundle.encoder.head(moved, self._state.context)
        self._timings.lap("solve")
        found = run_alone(
            find_candidates(bundle.index, bundle.items, queries, n, allowed, self._unwanted)
        )
        self._timings.lap("search")
        self._degraded = self._degraded or found.degraded
        return found.items

    def _ways(
        self, goals: Doubles, settings: Doubles, fraction: float, cuts: Sequence[float]
    ) -> Iterator[list[Mark]]:
        """Each target's way to its goal, and the budget's to the settings."""
        ends = settings.copy()
        ends[1 + len(self._targets) :] = 0.0
        for j, target in enumerate(self._targets):
            way = []
            for strength in stops(target.rest, float(goals[1 + j])):
                mark = ends.copy()
                mark[1 + j] = strength
                way.append(Mark(mark, self._bound(mark, cuts)))
            yield way
        if self._query.plan.max_relevance_loss is not None and (ends == settings).all():
            bound = self._bound(ends, cuts)
            if bound is not None:
                bound = (1 - fraction) * cuts[0] + fraction * bound
            yield [Mark(np.zeros_like(ends), cuts[0]), Mark(fraction * ends, bound)]

    def _bound(self, settings: Doubles, cuts: Sequence[float]) -> float | None:
        return self._anchors.bound(settings[1 : 1 + len(self._targets)].tolist(), cuts)

    def _encloses(self, way: Sequence[Mark]) -> bool:
        """Whether nothing gets in between any two marks; what has no bound counts as enclosed."""
        for (start, start_bound), (end, end_bound) in pairwise(way):
            if start_bound is None or end_bound is None:
                continue
            lines = Lines(self._field.scores(start), self._field.change(end - start))
            if not enclosed(lines, self._n, start_bound, end_bound):
                return False
        return True

    def _lift_of(self, j: int) -> int:
        return 1 + len(self._targets) + j

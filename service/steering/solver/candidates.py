"""Searches for the candidates of a problem at its search points."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.arrays import Bools, Doubles, Floats, Ints, distinct
from service.ranking.measures import RELEVANCE_DEPTH
from service.steering.boost import PLACES, better_off
from service.steering.plan import Counts
from service.steering.solver.linear import top_n
from service.steering.solver.problem import Problem
from service.steering.solver.scores import CandidateScores
from service.steering.solver.search_points import SearchPoints
from service.steering.solver.strengths import Strengths


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The candidates of one round, with what the solver's steps read of them.

    Attributes:
        scores: Their scores.
        moves: Changes of z, float32 [1 + J, d].
        points: The search points.
        depths: How many items were searched for at each search point.
        are_all: Whether they are all items that the request allows.
        n: Length of the list.
        counts: For each target, the right numbers of its concept's items.
    """

    scores: CandidateScores
    moves: Floats
    points: SearchPoints
    depths: Sequence[int]
    are_all: bool
    n: int
    counts: Sequence[Counts]

    def tally(self, strengths: Strengths) -> list[int]:
        """Counts, for each target, the items of its concept in the list."""
        return _tally(self.scores, strengths, self.n)

    def unmet(self, strengths: Strengths) -> list[int]:
        """Returns the targets that the list does not meet."""
        tally = self.tally(strengths)
        return [j for j, counts in enumerate(self.counts) if not counts.hold(tally[j])]


def find_candidates(
    problem: Problem, moves: Floats, points: SearchPoints, depth: int
) -> Candidates:
    """Searches for at least depth items at each search point.

    At the first one, which is no steering, it finds as many as relevance losses and boosts need.
    """
    compares = problem.compares or problem.plan.max_relevance_loss is not None
    first_depth = max(depth, RELEVANCE_DEPTH if compares else 0, PLACES if problem.boosts else 0)
    if first_depth > depth:
        parts = [_search(problem, moves, points.moves[:1], first_depth)]
        if len(points.moves) > 1:
            parts.append(_search(problem, moves, points.moves[1:], depth))
    else:
        parts = [_search(problem, moves, points.moves, depth)]
    items = distinct(*parts)
    are_all = len(items) < first_depth
    if problem.boosts:
        for among in better_off(problem.boosts):
            items = distinct(items, _search(problem, moves, points.moves, depth, among))
    scores = _score(problem, moves, items)
    n = min(problem.n, len(items))
    unsteered = _tally(scores, Strengths.none(len(problem.targets)), n)
    return Candidates(
        scores=scores,
        moves=moves,
        points=points,
        depths=[first_depth] + [depth] * (len(points.moves) - 1),
        are_all=are_all,
        n=n,
        counts=[
            target.bounds.counts(n, count)
            for target, count in zip(problem.targets, unsteered, strict=True)
        ],
    )


def with_members(problem: Problem, candidates: Candidates, strengths: Strengths) -> Candidates:
    """Adds the best items of each target's concept, and the best others, at some strengths."""
    moves = candidates.moves
    weights = strengths.moves[None]
    parts = [
        _search(problem, moves, weights, candidates.n, among)
        for target in problem.targets
        for among in (target.members, ~target.members)
    ]
    items = distinct(candidates.scores.items, *parts)
    return replace(candidates, scores=_score(problem, moves, items))


def _search(
    problem: Problem, moves: Floats, weights: Doubles, n: int, among: Bools | None = None
) -> Ints:
    """Finds the n best items at each of several weights of the moves, [a, 1 + J]."""
    moved = problem.state.z + weights.astype(np.float32) @ moves
    queries = problem.model.head(moved, problem.state.context)
    return problem.search(queries, n, among)


def _score(problem: Problem, moves: Floats, items: Ints) -> CandidateScores:
    problem.lap("solve")
    scores = CandidateScores(problem, moves, items)
    problem.lap("rank")
    return scores


def _tally(scores: CandidateScores, strengths: Strengths, n: int) -> list[int]:
    if not len(scores.members):
        return []
    listed = top_n(scores.at(strengths), n)
    return [int(members[listed].sum()) for members in scores.members]

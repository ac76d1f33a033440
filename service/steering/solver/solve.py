"""Finds how far steering goes: strengths that meet target shares, and what a budget allows.

With an identity head and no boost, both are exact over the whole catalogue: candidates are searched
for at several strengths, and more of them until a bound proves that no other item can be listed.
The list that is solved for is the list returned, so what the report says about it holds.
docs/solver.md explains it.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from service.ranking.measures import RELEVANCE_DEPTH, relevance_loss
from service.ranking.order import rank
from service.steering.plan import Applied, TargetStrength
from service.steering.solver.candidates import Candidates, find_candidates
from service.steering.solver.linear import STEPS, LinearScores, enclosed, largest_within
from service.steering.solver.meet_targets import MetTargets, lift_unmet, meet_targets
from service.steering.solver.path import StrengthPath
from service.steering.solver.problem import Problem
from service.steering.solver.scores import HEAD_STEPS
from service.steering.solver.search_points import PathPoint, search_points, stops
from service.steering.solver.solution import ScoredCandidates
from service.steering.solver.strengths import Strengths

MIN_DEPTH = 160
"""Items searched for at each search point in the first round. More make a second round rarer."""

WIDENING = 2
"""Factor by which that number grows in each round that proves nothing."""


def solve(problem: Problem) -> ScoredCandidates:
    """Finds the strengths, and the candidates of the resulting list.

    `degraded` of the result is left False: the problem's search knows whether the index failed.
    """
    moves = problem.moves()
    points = search_points(problem.targets, moves, has_head=problem.model.has_head)
    depth = max(MIN_DEPTH, 2 * problem.n)
    while True:
        candidates = find_candidates(problem, moves, points, depth)
        met = meet_targets(problem, candidates)
        candidates, strengths = lift_unmet(problem, candidates, met.strengths)
        fraction = fit_budget(problem, candidates, strengths)
        proven = _is_proven(problem, candidates, MetTargets(met.furthest, strengths), fraction)
        problem.lap("solve")
        if proven:
            return _scored(candidates, strengths, fraction)
        depth *= WIDENING


def fit_budget(problem: Problem, candidates: Candidates, strengths: Strengths) -> float:
    """Finds the largest fraction of the strengths that the budget allows; 1 without a budget."""
    limit = problem.plan.max_relevance_loss
    if limit is None:
        return 1.0
    scores = candidates.scores
    unsteered = rank(scores.items, scores.plain, max(candidates.n, RELEVANCE_DEPTH)).scores
    start = Strengths.none(len(problem.targets))
    path = StrengthPath(scores, start, strengths, candidates.n)
    return largest_within(
        lambda t: relevance_loss(unsteered, scores.plain[path.listed(t)]),
        limit,
        STEPS if scores.is_linear else HEAD_STEPS,
    )


def _is_proven(problem: Problem, candidates: Candidates, met: MetTargets, fraction: float) -> bool:
    """Returns whether no other item can get into a list on any path that was solved.

    Lifts are left out: they act on the candidates and on the best items of their concepts. Nothing
    is bounded, and so nothing disproved, for a nonlinear head or boosts, and where several targets'
    strengths add up to more than the largest of one.
    """
    scores = candidates.scores
    if candidates.are_all or not scores.is_linear:
        return True
    cuts = [
        float(np.partition(scores.at(strengths), -depth)[-depth])
        for strengths, depth in zip(candidates.points.strengths, candidates.depths, strict=True)
    ]
    paths = _solved_paths(problem, candidates, met, fraction, cuts)
    return all(_is_enclosed(candidates, path) for path in paths)


def _solved_paths(
    problem: Problem,
    candidates: Candidates,
    met: MetTargets,
    fraction: float,
    cuts: Sequence[float],
) -> Iterator[list[PathPoint]]:
    """Yields each target's path to its furthest strength, and the budget's to the strengths."""
    points = candidates.points
    ends = met.strengths.with_lifts(np.zeros(len(problem.targets)))
    for j, target in enumerate(problem.targets):
        path = []
        for strength in stops(target.rest, float(met.furthest.targets[j])):
            strengths = ends.with_target(j, strength)
            path.append(PathPoint(strengths, points.bound(strengths.targets.tolist(), cuts)))
        yield path
    if problem.plan.max_relevance_loss is not None and ends.equals(met.strengths):
        bound = points.bound(ends.targets.tolist(), cuts)
        if bound is not None:
            bound = (1 - fraction) * cuts[0] + fraction * bound
        start = PathPoint(Strengths.none(len(problem.targets)), cuts[0])
        yield [start, PathPoint(ends.scaled(fraction), bound)]


def _is_enclosed(candidates: Candidates, path: Sequence[PathPoint]) -> bool:
    """Returns whether no other item gets in between any two points of a path.

    A part without a bound at both ends counts as enclosed.
    """
    scores = candidates.scores
    for start, end in pairwise(path):
        if start.bound is None or end.bound is None:
            continue
        change = scores.change(end.strengths.minus(start.strengths))
        lines = LinearScores(scores.at(start.strengths), change)
        if not enclosed(lines, candidates.n, start.bound, end.bound):
            return False
    return True


def _scored(candidates: Candidates, strengths: Strengths, fraction: float) -> ScoredCandidates:
    scores = candidates.scores
    solved = zip(strengths.targets.tolist(), strengths.lifts.tolist(), strict=True)
    return ScoredCandidates(
        items=scores.items,
        plain=scores.plain,
        scores=scores.at(strengths, fraction),
        applied=Applied(fraction, tuple(TargetStrength(*strength) for strength in solved)),
        boosted=scores.boosted(strengths, fraction),
    )

"""Finds the strengths and lifts that meet target shares."""

from typing import NamedTuple

import numpy as np

from service.steering.plan import TargetShare
from service.steering.solver.candidates import Candidates, with_members
from service.steering.solver.linear import STEPS, least_within, smallest_shift
from service.steering.solver.path import StrengthPath
from service.steering.solver.problem import Problem
from service.steering.solver.scores import HEAD_STEPS
from service.steering.solver.strengths import Strengths

ROUNDS = 3
"""Times that each of several targets is solved while the others stay. More rarely change it."""

LIFT_ROUNDS = 50
"""Times that the lifts are corrected in turn: each may push another concept's items out."""

REPAIR_ROUNDS = 5
"""The same after all lifts were pushed further."""

SPANS = tuple(2.0**power for power in range(-7, 1))
"""Fractions of the largest strength that are tried first: doubled until the share is right."""


class MetTargets(NamedTuple):
    """Strengths that meet the targets, or nearly so.

    Attributes:
        furthest: For each target the furthest strength that had to be tried.
        strengths: The strengths.
    """

    furthest: Strengths
    strengths: Strengths


class Lifted(NamedTuple):
    """Strengths with lifts, and the candidates, extended where lifts needed it."""

    candidates: Candidates
    strengths: Strengths


class _Reach(NamedTuple):
    """The furthest strength that was tried for one target, and the strength to use."""

    furthest: float
    strength: float


def rest_strengths(targets: tuple[TargetShare, ...]) -> Strengths:
    """Returns the strengths to start from: all other edits, and each target's rest strength."""
    strengths = Strengths.none(len(targets))
    values = strengths.values.copy()
    values[0] = 1.0
    for j, target in enumerate(targets):
        values[1 + j] = target.rest
    return Strengths(values)


def meet_targets(problem: Problem, candidates: Candidates) -> MetTargets:
    """Solves each target while the others stay, until none moves, for at most ROUNDS rounds.

    If some are still unmet, raises all strengths together.
    """
    strengths = rest_strengths(problem.targets)
    furthest = strengths
    for _ in range(ROUNDS):
        before = strengths
        for j in range(len(problem.targets)):
            reach = _meet(problem, candidates, strengths, j)
            furthest = furthest.with_target(j, reach.furthest)
            strengths = strengths.with_target(j, reach.strength)
        if len(problem.targets) == 1 or strengths.equals(before):
            break
    raised = _raise_together(problem, candidates, strengths)
    if raised is strengths:
        return MetTargets(furthest, strengths)
    return MetTargets(raised, raised)


def lift_unmet(problem: Problem, candidates: Candidates, strengths: Strengths) -> Lifted:
    """Lifts the items of concepts whose shares no strength meets, as little as that needs.

    Lifts of several concepts that compete for the end of the list may overtake each other for ever.
    Then all are pushed further than the other items, and corrected from there; these lifts are not
    the smallest.
    """
    if not candidates.unmet(strengths):
        return Lifted(candidates, strengths)
    candidates = with_members(problem, candidates, strengths)
    strengths = _lift_in_turn(candidates, strengths, LIFT_ROUNDS)
    if not _fit_together(candidates) or not candidates.unmet(strengths):
        return Lifted(candidates, strengths)
    reach = np.sign(strengths.lifts) * np.ptp(candidates.scores.at(strengths))
    for span in SPANS:
        pushed = strengths.with_lifts(strengths.lifts + span * reach)
        # Page tokens hold strengths as float32.
        pushed = Strengths(pushed.values.astype(np.float32).astype(np.float64))
        pushed = _lift_in_turn(candidates, pushed, REPAIR_ROUNDS)
        if not candidates.unmet(pushed):
            return Lifted(candidates, pushed)
    return Lifted(candidates, strengths)


def _meet(problem: Problem, candidates: Candidates, strengths: Strengths, j: int) -> _Reach:
    """Finds target j's strength while the others stay."""
    target = problem.targets[j]
    counts = candidates.counts[j]
    start = strengths.with_target(j, target.rest)
    count = candidates.tally(start)[j]
    if counts.hold(count):
        return _Reach(target.rest, target.rest)
    end_strength = target.rest + target.direction(count, counts)
    end = start.with_target(j, end_strength)
    # From rest strength 1, a float32 cannot hold the parts of a small span.
    spans = SPANS if target.rest == 0.0 else SPANS[-1:]
    path = StrengthPath(candidates.scores, start, end, candidates.n)
    position = path.first(candidates.scores.members[j], counts, spans)
    strength = target.rest + position.t * (end_strength - target.rest)
    return _Reach(strength if position.is_met else end_strength, strength)


def _raise_together(problem: Problem, candidates: Candidates, strengths: Strengths) -> Strengths:
    """Strengthens all of several targets by the same amount until all are met, if they ever are.

    Solved in turn, each target has the least strength that is enough beside the others. Where items
    of two concepts compete for the end of the list, that puts each just below the other, round
    after round; both have to fall below the next item of neither.

    Returns:
        The same object if nothing is unmet, or if no amount meets all.
    """
    if len(problem.targets) < 2:
        return strengths
    unmet = candidates.unmet(strengths)
    if not unmet:
        return strengths
    rest = rest_strengths(problem.targets)
    signs = np.sign(strengths.values - rest.values)
    tally = candidates.tally(strengths)
    for j in unmet:
        if not signs[1 + j]:
            signs[1 + j] = problem.targets[j].direction(tally[j], candidates.counts[j])
    least = np.zeros_like(signs)
    for j, target in enumerate(problem.targets):
        least[1 + j] = min(target.signs[-1], 0.0)

    def raised(by: float) -> Strengths:
        by = round(by * STEPS) / STEPS  # a float32 can hold it
        return Strengths(np.clip(strengths.values + by * signs, least, 1.0))

    def meets_all(by: float) -> bool:
        return not candidates.unmet(raised(by))

    for span in SPANS:
        if meets_all(span):
            return raised(least_within(meets_all, span, HEAD_STEPS))
    return strengths


def _lift_in_turn(candidates: Candidates, strengths: Strengths, rounds: int) -> Strengths:
    """Corrects the lift of each unmet target in turn, for at most some rounds."""
    for _ in range(rounds):
        unmet = candidates.unmet(strengths)
        if not unmet:
            break
        for j in unmet:
            strengths = strengths.with_lift(j, 0.0)
            shift = smallest_shift(
                candidates.scores.at(strengths),
                candidates.scores.members[j],
                candidates.n,
                candidates.counts[j],
            )
            strengths = strengths.with_lift(j, shift)
    return strengths


def _fit_together(candidates: Candidates) -> bool:
    """Returns whether the list has room for all that several targets ask for."""
    if len(candidates.counts) < 2:
        return False
    # An item of two concepts serves both.
    memberships = np.sort(candidates.scores.members.sum(axis=0))[::-1][: candidates.n]
    return bool(sum(counts.least for counts in candidates.counts) <= memberships.sum())

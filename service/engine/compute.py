"""Computes one reply: audience -> steer -> find candidates -> rank -> explain.

`answer` is pure except for the clock. It yields where it needs a model or the index, so that
replies computed at once share those calls; see service.batching.joint_calls.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from service.admission.ladder import Degradation
from service.arrays import Floats, Ints, are_in
from service.batching.joint_calls import Computation, run_alone
from service.bundle.bundle import Bundle
from service.bundle.history import Event, EventKind
from service.engine.audience import NO_ITEMS, Audience, Source, audience
from service.engine.candidates import find_scored_candidates, solve_candidates
from service.engine.explain import Term, explain
from service.engine.popular import popular_reply
from service.engine.query import Query
from service.engine.reply import Reply
from service.engine.report import Report, report
from service.ranking.measures import RELEVANCE_DEPTH
from service.ranking.order import Ranking, rank
from service.steering.edits import Operation, RawEdit
from service.steering.lift import lifts
from service.steering.plan import WHOLLY, Applied, Plan
from service.steering.solver.solution import ScoredCandidates
from service.steering.steer import Steered, steer
from service.telemetry.timings import Timings
from service.users.state import UNKNOWN_USER, StoredUser


class _Exclusions(NamedTuple):
    """Items that the list must not contain.

    Attributes:
        unwanted: Seen items and those that the request excludes, int64, ascending, each once.
        returned: Items of earlier pages, int64.
    """

    unwanted: Ints
    returned: Ints


class _SteeredCandidates(NamedTuple):
    """The steering at the strength that is used, and the candidates scored under it."""

    steered: Steered
    candidates: ScoredCandidates


class _Listed(NamedTuple):
    """The list.

    Attributes:
        ranking: Its items in order, with their steered scores.
        rows: Positions of these items among the candidates, int64 [n].
        unsteered_scores: Unsteered scores of these items, float32 [n].
    """

    ranking: Ranking
    rows: Ints
    unsteered_scores: Floats


def answer(
    query: Query, stored: StoredUser, timings: Timings, degradations: Sequence[Degradation] = ()
) -> Computation[Reply]:
    """Computes one reply.

    Args:
        query: A valid request.
        stored: What the store knows of the user.
        timings: Receives the time of each stage.
        degradations: Those that occurred before, for instance in reading the user.
    """
    timings.lap("queue")
    who = yield from audience(query, stored)
    timings.lap("encode")
    exclusions = _exclusions(query, who)
    if query.plan.degraded:
        degradations = (*degradations, Degradation.UNSTEERED)
    solved = query.page.applied if query.page else None
    steered = _steer(query, who, solved or WHOLLY)
    timings.lap("steer")
    if who.source is not Source.PERSONAL and not _acts(query, steered):
        return _popular(query, who, steered, exclusions, degradations)

    found = yield from _find(query, who, steered, solved, exclusions, timings)
    candidates = found.candidates
    if candidates.degraded:
        degradations = (*degradations, Degradation.EXACT_SEARCH)

    listed = _rank(query, candidates, exclusions.returned)
    depth = query.n + len(exclusions.returned)
    unsteered = _rank_unsteered(query, candidates, depth)
    reply = Reply(
        query=query,
        audience=who,
        ranking=listed.ranking,
        unsteered_scores=listed.unsteered_scores,
        unsteered=_cut(unsteered, depth),
        terms=_terms(query, who, found, listed),
        report=_report(query, found.steered, listed, unsteered, candidates.applied),
        degradations=tuple(degradations),
        applied=candidates.applied,
    )
    timings.lap("rank")
    return reply


def warm_up(bundle: Bundle) -> Reply:
    """Answers one request that uses every part of a bundle; the server is ready once this works."""
    concepts = bundle.labels.concepts[:1]
    targets = [bundle.labels.neuron_target(0), *(concept.target for concept in concepts)]
    edits = tuple(RawEdit(target, Operation.ADD, target.unit) for target in targets)
    names = tuple(concept.name for concept in concepts)
    query = Query(
        bundle,
        n=20,
        history=tuple(Event(item_id, EventKind.LIKE) for item_id in bundle.catalogue.item_ids[:10]),
        plan=Plan(edits, max_relevance_loss=0.1, concepts=names),
        explain=True,
        include_unsteered=True,
        include_report=True,
    )
    return run_alone(answer(query, UNKNOWN_USER, Timings()))


def _exclusions(query: Query, who: Audience) -> _Exclusions:
    catalogue = query.bundle.catalogue
    unwanted = who.seen
    if query.exclude:
        unwanted = np.union1d(unwanted, catalogue.indices_of(query.exclude))
    if query.page is None:
        return _Exclusions(unwanted, NO_ITEMS)
    return _Exclusions(unwanted, catalogue.indices_of_hashes(query.page.returned))


def _steer(query: Query, who: Audience, applied: Applied) -> Steered:
    return steer(
        query.plan,
        who.state,
        query.bundle.sae_decoder,
        applied,
        with_effects=query.include_report,
    )


def _acts(query: Query, steered: Steered) -> bool:
    """Returns whether the steering can change the list."""
    return steered.change is not None or bool(query.plan.targets) or query.plan.boosts


def _popular(
    query: Query,
    who: Audience,
    steered: Steered,
    exclusions: _Exclusions,
    degradations: Sequence[Degradation],
) -> Reply:
    unknown = who._replace(source=Source.POPULAR)
    unwanted = np.union1d(exclusions.unwanted, exclusions.returned)
    return popular_reply(query, unknown, steered, unwanted, tuple(degradations))


def _find(
    query: Query,
    who: Audience,
    steered: Steered,
    solved: Applied | None,
    exclusions: _Exclusions,
    timings: Timings,
) -> Computation[_SteeredCandidates]:
    """Finds the candidates; solves for the strengths first if targets or a budget ask for it.

    Args:
        query: The request.
        who: The audience of the list.
        steered: The steering at full strength, or at the strength solved for an earlier page.
        solved: That strength, or None.
        exclusions: Items that must not be listed.
        timings: Receives the time of each stage.
    """
    if query.plan.solves and solved is None:
        candidates = solve_candidates(query, who.state, steered, exclusions.unwanted, timings)
        return _SteeredCandidates(_steer(query, who, candidates.applied), candidates)
    candidates = yield from find_scored_candidates(
        query,
        who.state,
        steered,
        applied=solved or WHOLLY,
        unwanted=exclusions.unwanted,
        depth=query.n + len(exclusions.returned),
    )
    timings.lap("search")
    return _SteeredCandidates(steered, candidates)


def _rank(query: Query, candidates: ScoredCandidates, returned: Ints) -> _Listed:
    """Ranks the candidates that no earlier page returned, and takes the n best."""
    items = candidates.items
    scores = candidates.scores
    if len(returned):
        fresh = ~are_in(items, np.sort(returned))
        ranking = rank(items[fresh], scores[fresh], query.n)
    else:
        ranking = rank(items, scores, query.n)
    rows = np.searchsorted(items, ranking.items)  # candidates are sorted by item index
    return _Listed(ranking, rows, candidates.plain[rows])


def _rank_unsteered(query: Query, candidates: ScoredCandidates, depth: int) -> Ranking | None:
    """Ranks the candidates without steering, as deep as losses need; None if it is not needed."""
    if not query.compares:
        return None
    return rank(candidates.items, candidates.plain, max(depth, RELEVANCE_DEPTH))


def _cut(unsteered: Ranking | None, depth: int) -> Ranking | None:
    if unsteered is None:
        return None
    return Ranking(unsteered.items[:depth], unsteered.scores[:depth])


def _terms(
    query: Query, who: Audience, found: _SteeredCandidates, listed: _Listed
) -> tuple[Term, ...]:
    """Splits the listed items' scores into reasons, if the request asks for them."""
    if not query.explain:
        return ()
    edits = found.steered.edits
    boosted = [
        (edits[position].edit, part[listed.rows]) for position, part in found.candidates.boosted
    ]
    return explain(
        query.bundle,
        who.state,
        listed.ranking,
        listed.unsteered_scores,
        found.steered,
        boosted,
        lifts(query.plan, found.candidates.applied, listed.ranking.items),
    )


def _report(
    query: Query, steered: Steered, listed: _Listed, unsteered: Ranking | None, applied: Applied
) -> Report | None:
    """Compares the steered with the unsteered list, if the request asks for it."""
    if unsteered is None or not query.include_report:
        return None
    return report(query, steered, listed.ranking, listed.unsteered_scores, unsteered, applied)

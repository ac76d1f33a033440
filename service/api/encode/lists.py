"""Domain to wire: replies as messages."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from trimtab.v1 import recommendation_pb2 as wire
from trimtab.v1 import steering_pb2 as steering

from service.admission.ladder import Degradation
from service.api.page_token import next_token
from service.bundle.bundle import Bundle
from service.engine.audience import Audience, Source
from service.engine.explain import Term, TermKind
from service.engine.reply import Reply
from service.engine.report import Bound, Report, TargetResult
from service.ranking.order import Ranking
from service.steering.edits import EditEffect, Operation
from service.steering.plan import AppliedEdit
from service.telemetry.timings import Timings

_SOURCES = {
    Source.PERSONAL: wire.SOURCE_PERSONAL,
    Source.COLD_START: wire.SOURCE_COLD_START,
    Source.POPULAR: wire.SOURCE_POPULAR,
}


_DEGRADATIONS = {kind: wire.Degradation.Value(f"DEGRADATION_{kind.name}") for kind in Degradation}


_OPERATIONS = {
    Operation.ADD: steering.OPERATION_ADD,
    Operation.SET: steering.OPERATION_SET,
    Operation.SCALE: steering.OPERATION_SCALE,
    Operation.CAP: steering.OPERATION_CAP,
    Operation.ABLATE: steering.OPERATION_ABLATE,
    Operation.BLEND: steering.OPERATION_BLEND,
    Operation.BOOST: steering.OPERATION_BOOST,
}


_BOUNDS = {
    Bound.NONE: steering.BOUND_NONE,
    Bound.BUDGET: steering.BOUND_BUDGET,
    Bound.TARGET: steering.BOUND_TARGET,
}


_REASONS = {
    TermKind.UNSTEERED: wire.REASON_KIND_UNSTEERED,
    TermKind.RECONSTRUCTION: wire.REASON_KIND_RECONSTRUCTION,
    TermKind.INTERACTION: wire.REASON_KIND_INTERACTION,
    TermKind.TARGET: wire.REASON_KIND_TARGET,
    TermKind.POPULARITY: wire.REASON_KIND_POPULARITY,
}


def recommend_response(reply: Reply, request_id: str, timings: Timings) -> wire.RecommendResponse:
    """The whole reply."""
    response = wire.RecommendResponse(
        request_id=request_id,
        served_by=served_by(reply.query.bundle, reply.audience, reply.degradations),
    )
    add_recommendations(response.items, reply)
    if reply.unsteered is not None and reply.query.include_unsteered:
        response.unsteered.extend(_unsteered(reply, reply.unsteered))
    if reply.report is not None:
        response.report.CopyFrom(_report(reply.report))
    if reply.query.page is not None:
        listed = reply.query.bundle.catalogue.hashes[reply.ranking.items]
        response.next_page_token = next_token(
            reply.query.page, reply.applied, listed, reply.query.n
        )
    _set_timing(response.timing, timings)
    return response


def add_recommendations(items: Any, reply: Reply) -> None:
    """Adds the list to a message's field, with unsteered ranks and reasons where they were asked for.

    Filled in place: made apart and copied, twenty items take twice as long.
    """
    catalogue = reply.query.bundle.catalogue
    item_ids, titles = catalogue.item_ids, catalogue.titles
    listed = reply.ranking.items.tolist()
    scores, unsteered_scores = reply.ranking.scores.tolist(), reply.unsteered_scores.tolist()
    rows = zip(listed, scores, unsteered_scores, strict=True)
    for rank, (item, score, unsteered_score) in enumerate(rows, _first_rank(reply)):
        items.add(
            item_id=item_ids[item],
            title=titles[item],
            rank=rank,
            score=score,
            unsteered_score=unsteered_score,
        )
    if reply.unsteered is not None:
        ranks = {item: rank for rank, item in enumerate(reply.unsteered.items.tolist(), 1)}
        for item, message in zip(listed, items, strict=True):
            if item in ranks:
                message.unsteered_rank = ranks[item]
    for term in reply.terms:
        for message, contribution in zip(items, term.contributions.tolist(), strict=True):
            message.reasons.append(_reason(term, contribution))


def _unsteered(reply: Reply, unsteered: Ranking) -> Iterable[wire.Recommendation]:
    catalogue = reply.query.bundle.catalogue
    listed = enumerate(_pairs(unsteered.items, unsteered.scores), 1)
    for rank, (item, score) in islice(listed, _first_rank(reply) - 1, None):
        yield wire.Recommendation(
            item_id=catalogue.item_ids[item],
            title=catalogue.titles[item],
            rank=rank,
            score=score,
            unsteered_score=score,
            unsteered_rank=rank,
        )


def _first_rank(reply: Reply) -> int:
    """Ranks go on from page to page."""
    return 1 + (0 if reply.query.page is None else len(reply.query.page.returned))


def served_by(bundle: Bundle, who: Audience, degradations: Iterable[Degradation]) -> wire.ServedBy:
    """What made the reply."""
    return wire.ServedBy(
        bundle_id=bundle.id,
        label_set=bundle.labels.version,
        source=_SOURCES[who.source],
        degradations=[_DEGRADATIONS[degradation] for degradation in degradations],
        ignored_item_count=who.ignored_count,
        cached=who.cached,
    )


def _pairs(items: Any, scores: Any) -> Iterable[tuple[int, float]]:
    return zip(items.tolist(), scores.tolist(), strict=True)


def _reason(term: Term, contribution: float) -> wire.Reason:
    if term.edit is None:
        return wire.Reason(kind=_REASONS[term.kind], contribution=contribution)
    target = term.edit.target
    if target.is_concept:
        return wire.Reason(concept=target.name, contribution=contribution)
    if target.name.startswith("#"):
        return wire.Reason(neuron=int(target.name[1:]), contribution=contribution)
    return wire.Reason(kind=wire.REASON_KIND_WEIGHTS, contribution=contribution)


def _report(report: Report) -> steering.SteeringReport:
    return steering.SteeringReport(
        applied_fraction=report.applied_fraction,
        edits=[
            _edit_report(applied, effect)
            for applied, effect in zip(report.edits, report.effects, strict=True)
        ],
        relevance_loss=report.relevance_loss,
        overlap=report.overlap,
        concepts=[
            steering.ConceptShare(
                concept=share.concept,
                unsteered_share=share.unsteered,
                share=share.steered,
                unsteered_item_share=share.unsteered_items,
                item_share=share.steered_items,
            )
            for share in report.shares
        ],
        bound=_BOUNDS[report.bound],
        targets=[_target_report(result) for result in report.targets],
    )


def _target_report(result: TargetResult) -> steering.TargetReport:
    asked, found = result.asked, result.found
    return steering.TargetReport(
        concept=result.target.concept.name,
        met=asked.hold(found),
        lift=result.strength.lift,
        min_items=asked.least,
        max_items=asked.most,
        items=found,
    )


def _edit_report(applied: AppliedEdit, effect: EditEffect) -> steering.EditReport:
    edit, fraction = applied
    return steering.EditReport(
        target=edit.target.name,
        operation=_OPERATIONS[edit.operation],
        raw_strength=edit.strength,
        level_before=effect.level_before,
        level_after=effect.level_after,
        no_effect=effect.amount == 0.0,
        applied_fraction=fraction,
    )


def _set_timing(message: wire.Timing, timings: Timings) -> None:
    for stage, seconds in timings.stages.items():
        setattr(message, f"{stage}_us", int(seconds * 1e6))
    message.total_us = int(timings.total * 1e6)

"""Encodes lists of recommendations, and what served them."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from trimtab.v1 import recommendation_pb2 as wire

from service.admission.ladder import Degradation
from service.api.encode.names import DEGRADATIONS, REASONS, SOURCES
from service.api.encode.report import steering_report
from service.api.page_token import MAX_RETURNED, encode_token
from service.arrays import Hashes
from service.bundle.bundle import Bundle
from service.engine.audience import Audience
from service.engine.explain import Term
from service.engine.page import Page
from service.engine.reply import Reply
from service.ranking.order import Ranking
from service.telemetry.timings import Timings


def recommend_response(reply: Reply, request_id: str, timings: Timings) -> wire.RecommendResponse:
    """Encodes the reply to a Recommend call."""
    response = wire.RecommendResponse(
        request_id=request_id,
        served_by=served_by(reply.query.bundle, reply.audience, reply.degradations),
        next_page_token=_next_page_token(reply),
    )
    add_recommendations(response.items, reply)
    if reply.unsteered is not None and reply.query.include_unsteered:
        response.unsteered.extend(_unsteered(reply, reply.unsteered))
    if reply.report is not None:
        response.report.CopyFrom(steering_report(reply.report))
    _set_timing(response.timing, timings)
    return response


def similar_items_response(reply: Reply) -> wire.SimilarItemsResponse:
    """Encodes the reply to a SimilarItems call."""
    response = wire.SimilarItemsResponse(
        served_by=served_by(reply.query.bundle, reply.audience, reply.degradations)
    )
    add_recommendations(response.items, reply)
    return response


def served_by(
    bundle: Bundle, audience: Audience, degradations: Iterable[Degradation]
) -> wire.ServedBy:
    """Encodes which bundle, label set and source a reply was made from, and without what."""
    return wire.ServedBy(
        bundle_id=bundle.id,
        label_set=bundle.labels.version,
        source=SOURCES[audience.source],
        degradations=[DEGRADATIONS[degradation] for degradation in degradations],
        ignored_item_count=audience.ignored_count,
        cached=audience.cached,
    )


def add_recommendations(items: Any, reply: Reply) -> None:
    """Adds the list to a repeated field, with unsteered ranks and reasons where requested.

    The field is filled in place: messages made apart and copied take twice as long.
    """
    catalogue = reply.query.bundle.catalogue
    item_ids = catalogue.item_ids
    titles = catalogue.titles
    listed = reply.ranking.items.tolist()
    scores = reply.ranking.scores.tolist()
    unsteered_scores = reply.unsteered_scores.tolist()
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


def _unsteered(reply: Reply, unsteered: Ranking) -> Iterator[wire.Recommendation]:
    """Yields the unsteered list from the page's first rank on."""
    catalogue = reply.query.bundle.catalogue
    first_rank = _first_rank(reply)
    items = unsteered.items[first_rank - 1 :].tolist()
    scores = unsteered.scores[first_rank - 1 :].tolist()
    for rank, (item, score) in enumerate(zip(items, scores, strict=True), first_rank):
        yield wire.Recommendation(
            item_id=catalogue.item_ids[item],
            title=catalogue.titles[item],
            rank=rank,
            score=score,
            unsteered_score=score,
            unsteered_rank=rank,
        )


def _first_rank(reply: Reply) -> int:
    """Returns the rank of the page's first item; ranks continue from page to page."""
    page = reply.query.page
    return 1 if page is None else 1 + len(page.returned)


def _next_page_token(reply: Reply) -> str:
    """Returns the token of the next page; "" after the last one."""
    page = reply.query.page
    if page is None:
        return ""
    hashes: Hashes = reply.query.bundle.catalogue.hashes[reply.ranking.items]
    returned = np.concatenate([page.returned, hashes]) if len(page.returned) else hashes
    if len(hashes) < reply.query.n or len(returned) >= MAX_RETURNED:
        return ""
    return encode_token(Page(page.request_digest, reply.applied, returned))


def _reason(term: Term, contribution: float) -> wire.Reason:
    if term.edit is None:
        return wire.Reason(kind=REASONS[term.kind], contribution=contribution)
    target = term.edit.target
    if target.is_concept:
        return wire.Reason(concept=target.name, contribution=contribution)
    if target.name.startswith("#"):
        return wire.Reason(neuron=int(target.name[1:]), contribution=contribution)
    return wire.Reason(kind=wire.REASON_KIND_WEIGHTS, contribution=contribution)


def _set_timing(message: wire.Timing, timings: Timings) -> None:
    for stage, seconds in timings.stages.items():
        setattr(message, f"{stage}_us", int(seconds * 1e6))
    message.total_us = int(timings.total * 1e6)

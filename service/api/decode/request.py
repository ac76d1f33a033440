"""Decodes requests for lists into queries."""

from trimtab.v1 import recommendation_pb2 as wire

from service.api.decode.checks import check_count, read_bundle, read_user_id
from service.api.decode.events import read_history
from service.api.decode.filter import read_filter, read_item_ids
from service.api.decode.page import read_page
from service.api.decode.steering import read_steering
from service.bundle.bundle import Bundle
from service.bundle.history import Event, EventKind
from service.bundle.registry import BundleRegistry
from service.engine.query import NO_FILTER, Query
from service.errors import NotFound, quoted, unexpected
from service.retrieval.filter import Filter
from service.steering.plan import NO_PLAN, Plan

MAX_BATCH = 256
"""Requests of one BatchRecommend call."""


def read_recommend(request: wire.RecommendRequest, bundles: BundleRegistry, max_n: int) -> Query:
    """Returns a valid query, resolved against the bundle that the request names."""
    bundle = read_bundle(request.bundle, bundles).pinned(request.steering.label_set)
    has_history = request.HasField("history")
    _check_user(request, has_history=has_history)
    if request.page_token and request.include_report:
        raise unexpected("include_report", "it on the first page only", "a page_token beside it")
    return Query(
        bundle=bundle,
        n=_read_n(request.n, max_n),
        user_id=request.user_id,
        history=read_history(request.history) if has_history else None,
        plan=_read_plan(request, bundle),
        item_filter=_read_filter(request, bundle),
        exclude=read_item_ids(request.exclude_item_ids, "exclude_item_ids"),
        page=read_page(request),
        explain=request.explain,
        include_unsteered=request.include_unsteered,
        include_report=request.include_report,
    )


def read_similar_items(
    request: wire.SimilarItemsRequest, bundles: BundleRegistry, max_n: int
) -> Query:
    """Returns the query of a user whose history is one view of the request's item.

    Raises:
        NotFound: the bundle does not know the item.
    """
    bundle = read_bundle(request.bundle, bundles).pinned(request.steering.label_set)
    if bundle.catalogue.index_of(request.item_id) is None:
        expected = f"expected an item of bundle {bundle.id[:12]}"
        raise NotFound(f"item_id: {expected}, found {quoted(request.item_id)}")
    return Query(
        bundle=bundle,
        n=_read_n(request.n, max_n),
        history=(Event(request.item_id, EventKind.VIEW),),
        plan=_read_plan(request, bundle),
        item_filter=_read_filter(request, bundle),
    )


def check_batch(request: wire.BatchRecommendRequest) -> None:
    """Checks that a batch is not too large; its requests are checked one by one."""
    check_count(request.requests, MAX_BATCH, "requests", "requests")


def _check_user(request: wire.RecommendRequest, *, has_history: bool) -> None:
    if request.user_id:
        read_user_id(request.user_id)
    elif not has_history:
        raise unexpected("user_id", "a user_id or a history", "neither a user_id nor a history")


def _read_n(n: int, max_n: int) -> int:
    if not 1 <= n <= max_n:
        raise unexpected("n", f"1 to {max_n}", n)
    return n


def _read_plan(request: wire.RecommendRequest | wire.SimilarItemsRequest, bundle: Bundle) -> Plan:
    if not request.HasField("steering"):
        return NO_PLAN
    return read_steering(request.steering, bundle)


def _read_filter(
    request: wire.RecommendRequest | wire.SimilarItemsRequest, bundle: Bundle
) -> Filter:
    if not request.HasField("filter"):
        return NO_FILTER
    return read_filter(request.filter, bundle)

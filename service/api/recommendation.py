"""Serves RecommendationService."""

import asyncio
import secrets
import time
from collections import defaultdict

from google.protobuf.message import Message
from trimtab.v1 import recommendation_pb2 as wire

from service.api.decode.checks import read_user_id
from service.api.decode.events import read_interactions
from service.api.decode.request import check_batch, read_recommend, read_similar_items
from service.api.encode.lists import recommend_response, similar_items_response
from service.api.handlers import BATCH_PARALLEL, Call, Method, element_error
from service.api.list_counts import ListCounts
from service.bundle.catalogue import item_hash
from service.bundle.history import Event, HistoryRule
from service.bundle.registry import BundleRegistry
from service.engine.engine import Engine
from service.engine.query import Query
from service.engine.reply import Reply
from service.errors import EditsOutOfRange, InvalidRequest
from service.telemetry.metrics import Metrics
from service.telemetry.timings import Timings
from service.users.codec import event_hash
from service.users.local_cache import UserCache
from service.users.state import RecordedEvent


class RecommendationRpc:
    """The methods of RecommendationService."""

    def __init__(
        self,
        engine: Engine,
        bundles: BundleRegistry,
        users: UserCache,
        metrics: Metrics,
        max_n: int,
    ) -> None:
        self._engine = engine
        self._bundles = bundles
        self._users = users
        self._max_n = max_n
        self._events = metrics.events
        self._counts = ListCounts(metrics)

    @property
    def methods(self) -> dict[str, Method]:
        """Returns the methods by their names in the .proto file."""
        return {
            "Recommend": self.recommend,
            "BatchRecommend": self.batch_recommend,
            "SimilarItems": self.similar_items,
            "RecordInteractions": self.record_interactions,
            "ForgetUser": self.forget_user,
        }

    async def recommend(self, request: wire.RecommendRequest, call: Call) -> wire.RecommendResponse:
        """Answers with one list."""
        timings = Timings()
        query = read_recommend(request, self._bundles, self._max_n)
        reply = await self._answer(query, timings, call)
        return recommend_response(reply, request.request_id or secrets.token_hex(8), timings)

    async def batch_recommend(self, request: wire.BatchRecommendRequest, call: Call) -> Message:
        """Answers with many lists, each with a status of its own."""
        check_batch(request)
        parallel = asyncio.Semaphore(BATCH_PARALLEL)

        async def answer(element: wire.RecommendRequest) -> wire.BatchRecommendResult:
            async with parallel:
                try:
                    return wire.BatchRecommendResult(response=await self.recommend(element, call))
                except Exception as error:
                    return wire.BatchRecommendResult(error=element_error(error))

        results = await asyncio.gather(*map(answer, request.requests))
        return wire.BatchRecommendResponse(results=results)

    async def similar_items(self, request: wire.SimilarItemsRequest, call: Call) -> Message:
        """Answers with the list of a user whose history is just this item."""
        query = read_similar_items(request, self._bundles, self._max_n)
        timings = Timings()
        return similar_items_response(await self._answer(query, timings, call))

    async def record_interactions(
        self, request: wire.RecordInteractionsRequest, _call: Call
    ) -> Message:
        """Adds events to histories; a request with one bad event adds none."""
        bundle = self._bundles.get()
        now_ms = time.time_ns() // 1_000_000
        unknown_count = 0
        events_of: dict[str, list[RecordedEvent]] = defaultdict(list)
        for user_id, event in read_interactions(request):
            unknown_count += bundle.catalogue.index_of(event.item_id) is None
            events_of[user_id].append(_recorded_event(event, bundle.history_rule, now_ms))
        count = await self._users.record(events_of)
        self._events.labels("accepted").inc(count.accepted)
        self._events.labels("duplicate").inc(count.duplicates)
        return wire.RecordInteractionsResponse(
            accepted_count=count.accepted,
            duplicate_count=count.duplicates,
            unknown_item_count=unknown_count,
        )

    async def forget_user(self, request: wire.ForgetUserRequest, _call: Call) -> Message:
        """Removes everything stored about a user."""
        was_known = await self._users.forget(read_user_id(request.user_id))
        return wire.ForgetUserResponse(found=was_known)

    async def _answer(self, query: Query, timings: Timings, call: Call) -> Reply:
        """Computes a list, and counts it."""
        try:
            reply = await self._engine.recommend(query, timings, call.remaining_s)
        except EditsOutOfRange as error:
            raise InvalidRequest("steering.edits", str(error)) from None
        self._counts.add(reply, timings)
        return reply


def _recorded_event(event: Event, rule: HistoryRule, now_ms: int) -> RecordedEvent:
    """Returns an event as the store keeps it.

    Its identity, by which repetitions are recognised, is the caller's event id; without one, the
    item, the time and the kind.
    """
    identity: tuple[str, ...] = (event.event_id,)
    if not event.event_id:
        when = str(now_ms if event.time_ms is None else event.time_ms)
        identity = (event.item_id, when, event.kind.name)
    return RecordedEvent(
        item_hash(event.item_id), event.time_ms, event_hash(*identity), rule.is_positive(event)
    )

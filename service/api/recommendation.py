"""RecommendationService."""

import asyncio
import secrets
import time
from collections import Counter, defaultdict
from functools import cache

from google.protobuf.message import Message
from trimtab.v1 import recommendation_pb2 as wire

from service.api.decode.request import (
    MAX_ID_BYTES,
    read_event,
    read_filter,
    read_n,
    read_recommend,
    read_user_id,
)
from service.api.decode.steering import read_steering
from service.api.encode.lists import add_recommendations, recommend_response, served_by
from service.api.handlers import BATCH_PARALLEL, Call, Method, element_error
from service.bundle.catalogue import item_hash
from service.bundle.history import Event, EventKind, HistoryRule
from service.bundle.registry import BundleRegistry
from service.engine.audience import Source
from service.engine.engine import Engine
from service.engine.query import Query
from service.engine.reply import Reply
from service.errors import InvalidRequest, NotFound
from service.steering.plan import NO_PLAN
from service.telemetry.metrics import Metrics
from service.telemetry.timings import Timings
from service.users.codec import event_hash
from service.users.local_cache import UserTier
from service.users.state import RecordedEvent

MAX_INTERACTIONS = 10_000


MAX_BATCH = 256


class RecommendationRpc:
    """The methods of RecommendationService."""

    def __init__(
        self, engine: Engine, bundles: BundleRegistry, users: UserTier, metrics: Metrics, max_n: int
    ) -> None:
        self._engine = engine
        self._bundles = bundles
        self._users = users
        self._max_n = max_n
        self._events = metrics.events
        # Their children by label, each looked up once.
        self._seconds, self._sources = (
            cache(metrics.stage_seconds.labels),
            cache(metrics.sources.labels),
        )
        self._caches, self._edits = cache(metrics.user_cache.labels), cache(metrics.edits.labels)
        self._degradations = cache(metrics.degradations.labels)

    @property
    def methods(self) -> dict[str, Method]:
        """By name in the .proto file."""
        return {
            "Recommend": self.recommend,
            "BatchRecommend": self.batch_recommend,
            "SimilarItems": self.similar_items,
            "RecordInteractions": self.record_interactions,
            "ForgetUser": self.forget_user,
        }

    async def recommend(self, request: wire.RecommendRequest, call: Call) -> wire.RecommendResponse:
        """One list."""
        timings = Timings()
        query = read_recommend(request, self._bundles, self._max_n)
        reply = await self._engine.recommend(query, timings, call.remaining_s)
        self._count(reply, timings)
        return recommend_response(reply, request.request_id or secrets.token_hex(8), timings)

    async def batch_recommend(self, request: wire.BatchRecommendRequest, call: Call) -> Message:
        """Many lists, each with a status of its own."""
        if len(request.requests) > MAX_BATCH:
            raise InvalidRequest(
                "requests", f"found {len(request.requests)}, expected at most {MAX_BATCH}"
            )
        parallel = asyncio.Semaphore(BATCH_PARALLEL)

        async def one(element: wire.RecommendRequest) -> wire.BatchRecommendResult:
            async with parallel:
                try:
                    return wire.BatchRecommendResult(response=await self.recommend(element, call))
                except Exception as error:
                    return wire.BatchRecommendResult(error=element_error(error))

        return wire.BatchRecommendResponse(
            results=await asyncio.gather(*map(one, request.requests))
        )

    async def similar_items(self, request: wire.SimilarItemsRequest, call: Call) -> Message:
        """What a user whose history is just this item would be recommended."""
        bundle = self._bundles.get(request.bundle).pinned(request.steering.label_set)
        if bundle.catalogue.index_of(request.item_id) is None:
            raise NotFound(
                f"item_id: bundle {bundle.id[:12]} does not know {request.item_id[:MAX_ID_BYTES]!r}"
            )
        query = Query(
            bundle=bundle,
            n=read_n(request.n, self._max_n),
            history=(Event(request.item_id, EventKind.VIEW),),
            plan=read_steering(request.steering, bundle)
            if request.HasField("steering")
            else NO_PLAN,
            item_filter=read_filter(request.filter, bundle),
        )
        timings = Timings()
        reply = await self._engine.recommend(query, timings, call.remaining_s)
        self._count(reply, timings)
        response = wire.SimilarItemsResponse(
            served_by=served_by(bundle, reply.audience, reply.degradations)
        )
        add_recommendations(response.items, reply)
        return response

    async def record_interactions(
        self, request: wire.RecordInteractionsRequest, call: Call
    ) -> Message:
        """Adds events to histories."""
        if len(request.interactions) > MAX_INTERACTIONS:
            raise InvalidRequest(
                "interactions",
                f"found {len(request.interactions)}, expected at most {MAX_INTERACTIONS}",
            )
        bundle = self._bundles.get()
        now_ms = time.time_ns() // 1_000_000
        unknown = 0
        events_of: dict[str, list[RecordedEvent]] = defaultdict(list)
        for position, interaction in enumerate(request.interactions):
            field = f"interactions[{position}]"
            user_id = read_user_id(interaction.user_id, f"{field}.user_id")
            event = read_event(interaction.event, f"{field}.event")
            unknown += bundle.catalogue.index_of(event.item_id) is None
            events_of[user_id].append(_recorded(event, bundle.history_rule, now_ms))
        count = await self._users.record(events_of)
        self._events.labels("accepted").inc(count.accepted)
        self._events.labels("duplicate").inc(count.duplicates)
        return wire.RecordInteractionsResponse(
            accepted_count=count.accepted,
            duplicate_count=count.duplicates,
            unknown_item_count=unknown,
        )

    async def forget_user(self, request: wire.ForgetUserRequest, call: Call) -> Message:
        """Removes everything stored about a user."""
        return wire.ForgetUserResponse(
            found=await self._users.forget(read_user_id(request.user_id))
        )

    def _count(self, reply: Reply, timings: Timings) -> None:
        for stage, seconds in timings.stages.items():
            self._seconds(stage).observe(seconds)
        self._sources(reply.audience.source.value).inc()
        self._caches(_cache_result(reply)).inc()
        for degradation in reply.degradations:
            self._degradations(degradation.value).inc()
        for operation, count in Counter(edit.operation for edit in reply.query.plan.edits).items():
            self._edits(operation.value).inc(count)


def _cache_result(reply: Reply) -> str:
    if reply.audience.cached:
        return "hit"
    if reply.query.history is not None:
        return "given"
    return "miss" if reply.audience.source is Source.PERSONAL else "unknown"


def _recorded(event: Event, rule: HistoryRule, now_ms: int) -> RecordedEvent:
    when = str(now_ms if event.time_ms is None else event.time_ms)
    identity = (event.event_id,) if event.event_id else (event.item_id, when, event.kind.name)
    return RecordedEvent(
        item_hash(event.item_id), event.time_ms, event_hash(*identity), rule.is_positive(event)
    )

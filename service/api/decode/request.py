"""Wire to domain: every field of a request is checked here, and only here.

What does not fit raises InvalidRequest with the field's path, what was found and what was expected.
"""

import math
from collections.abc import Sequence

from trimtab.v1 import recommendation_pb2 as wire

from service.api.decode.steering import read_steering
from service.api.page_token import read_page
from service.bundle.bundle import Bundle
from service.bundle.history import Event, EventKind
from service.bundle.registry import BundleRegistry
from service.engine.query import NO_FILTER, Query
from service.errors import InvalidRequest
from service.retrieval.filter import Condition, Filter
from service.steering.plan import NO_PLAN

MAX_ID_BYTES = 256


MAX_EXCLUDED = 10_000


MAX_CONDITIONS = 64


MAX_VALUES = 1_000


MAX_HISTORY = 100_000


def read_recommend(request: wire.RecommendRequest, bundles: BundleRegistry, max_n: int) -> Query:
    """A valid query, resolved against the bundle that the request names."""
    bundle = bundles.get(request.bundle).pinned(request.steering.label_set)
    has_history = request.HasField("history")
    if not request.user_id and not has_history:
        raise InvalidRequest(
            "user_id", "found neither a user_id nor a history, expected one of them"
        )
    if request.user_id:
        read_user_id(request.user_id)
    if request.page_token and request.include_report:
        raise InvalidRequest(
            "include_report", "found a page_token too, expected it on the first page only"
        )
    return Query(
        bundle=bundle,
        n=read_n(request.n, max_n),
        user_id=request.user_id,
        history=tuple(read_history(request.history)) if has_history else None,
        plan=read_steering(request.steering, bundle) if request.HasField("steering") else NO_PLAN,
        item_filter=read_filter(request.filter, bundle)
        if request.HasField("filter")
        else NO_FILTER,
        exclude=read_excluded(request.exclude_item_ids),
        page=read_page(request),
        explain=request.explain,
        include_unsteered=request.include_unsteered,
        include_report=request.include_report,
    )


def read_n(n: int, max_n: int) -> int:
    """How many recommendations."""
    if not 1 <= n <= max_n:
        raise InvalidRequest("n", f"found {n}, expected 1 to {max_n}")
    return n


def read_user_id(user_id: str, field: str = "user_id") -> str:
    """A user id that can be a key."""
    if not user_id:
        raise InvalidRequest(field, "found an empty id, expected 1 to 256 bytes")
    if (size := len(user_id.encode())) > MAX_ID_BYTES:
        raise InvalidRequest(field, f"found {size} bytes, expected at most {MAX_ID_BYTES}")
    return user_id


def read_history(history: wire.History, field: str = "history.events") -> list[Event]:
    """The events of a given history."""
    if len(history.events) > MAX_HISTORY:
        raise InvalidRequest(
            field, f"found {len(history.events)} events, expected at most {MAX_HISTORY}"
        )
    return [
        read_event(event, f"{field}[{position}]") for position, event in enumerate(history.events)
    ]


def read_event(event: wire.Event, field: str) -> Event:
    """One event."""
    if not event.item_id or len(event.item_id.encode()) > MAX_ID_BYTES:
        size = len(event.item_id.encode())
        raise InvalidRequest(
            f"{field}.item_id", f"found {size} bytes, expected 1 to {MAX_ID_BYTES}"
        )
    if len(event.event_id.encode()) > MAX_ID_BYTES:
        raise InvalidRequest(f"{field}.event_id", f"expected at most {MAX_ID_BYTES} bytes")
    value = event.value if event.HasField("value") else None
    if value is not None and not math.isfinite(value):
        raise InvalidRequest(f"{field}.value", f"found {value}, expected a finite number")
    try:
        kind = EventKind(event.kind)
    except ValueError:
        raise InvalidRequest(
            f"{field}.kind", f"found {event.kind}, expected an EventKind"
        ) from None
    try:
        time_ms = event.time.ToMilliseconds() if event.HasField("time") else None
    except ValueError:
        raise InvalidRequest(
            f"{field}.time", "found a time that is none, expected years 1 to 9999"
        ) from None
    return Event(event.item_id, kind, value, time_ms, event.event_id)


def read_excluded(item_ids: Sequence[str], field: str = "exclude_item_ids") -> tuple[str, ...]:
    """Items that are not to be returned; ids that the bundle does not know are no fault."""
    if len(item_ids) > MAX_EXCLUDED:
        raise InvalidRequest(field, f"found {len(item_ids)} ids, expected at most {MAX_EXCLUDED}")
    return tuple(item_ids)


def read_filter(message: wire.Filter, bundle: Bundle, field: str = "filter") -> Filter:
    """A filter that fits the bundle's attributes."""
    for part, conditions in (("all_of", message.all_of), ("none_of", message.none_of)):
        if len(conditions) > MAX_CONDITIONS:
            raise InvalidRequest(
                f"{field}.{part}",
                f"found {len(conditions)} conditions, expected at most {MAX_CONDITIONS}",
            )
        for position, condition in enumerate(conditions):
            if len(condition.values) > MAX_VALUES:
                raise InvalidRequest(
                    f"{field}.{part}[{position}].values",
                    f"found {len(condition.values)} values, expected at most {MAX_VALUES}",
                )
    item_filter = Filter(
        all_of=tuple(map(_condition, message.all_of)),
        none_of=tuple(map(_condition, message.none_of)),
        item_ids=read_excluded(message.item_ids, f"{field}.item_ids"),
    )
    bundle.catalogue.check(item_filter, field)
    return item_filter


def _condition(message: wire.Condition) -> Condition:
    return Condition(
        attribute=message.attribute,
        values=tuple(message.values),
        minimum=message.min if message.HasField("min") else None,
        maximum=message.max if message.HasField("max") else None,
    )

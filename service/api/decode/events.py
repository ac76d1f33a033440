"""Decodes histories and interactions."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from trimtab.v1 import recommendation_pb2 as wire

from service.api.decode.checks import MAX_ID_BYTES, check_count, read_user_id
from service.bundle.history import Event, EventKind
from service.errors import unexpected

MAX_HISTORY = 100_000
"""Events of a history that a request brings; a request of so many is a few megabytes."""

MAX_INTERACTIONS = 10_000
"""Interactions of one RecordInteractions call."""


class UserEvent(NamedTuple):
    """An event, and the user whose history it is added to."""

    user_id: str
    event: Event


def read_history(history: wire.History, field: str = "history.events") -> tuple[Event, ...]:
    """Returns the events of a history that the request brings, in its order."""
    check_count(history.events, MAX_HISTORY, "events", field)
    return tuple(
        read_event(event, f"{field}[{position}]") for position, event in enumerate(history.events)
    )


def read_interactions(request: wire.RecordInteractionsRequest) -> Iterator[UserEvent]:
    """Yields every interaction of a request, in its order."""
    check_count(request.interactions, MAX_INTERACTIONS, "interactions", "interactions")
    for position, interaction in enumerate(request.interactions):
        field = f"interactions[{position}]"
        user_id = read_user_id(interaction.user_id, f"{field}.user_id")
        yield UserEvent(user_id, read_event(interaction.event, f"{field}.event"))


def read_event(event: wire.Event, field: str) -> Event:
    """Returns one event; a path of a field is made only for a refusal, as histories are long."""
    item_id_bytes = len(event.item_id.encode())
    if not 1 <= item_id_bytes <= MAX_ID_BYTES:
        raise unexpected(f"{field}.item_id", f"1 to {MAX_ID_BYTES} bytes", f"{item_id_bytes} bytes")
    event_id_bytes = len(event.event_id.encode())
    if event_id_bytes > MAX_ID_BYTES:
        raise unexpected(
            f"{field}.event_id", f"at most {MAX_ID_BYTES} bytes", f"{event_id_bytes} bytes"
        )
    value = event.value if event.HasField("value") else None
    if value is not None and not math.isfinite(value):
        raise unexpected(f"{field}.value", "a finite number", value)
    try:
        kind = EventKind(event.kind)
    except ValueError:
        raise unexpected(f"{field}.kind", "an EventKind", event.kind) from None
    time_ms = _time_ms(event, field) if event.HasField("time") else None
    return Event(event.item_id, kind, value, time_ms, event.event_id)


def _time_ms(event: wire.Event, field: str) -> int:
    try:
        return event.time.ToMilliseconds()
    except ValueError:
        found = f"{event.time.seconds} seconds and {event.time.nanos} nanoseconds"
        raise unexpected(f"{field}.time", "a time in the years 1 to 9999", found) from None

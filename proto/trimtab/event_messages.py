"""Builds messages of events and histories from Python values."""

from collections.abc import Mapping

from trimtab.argument_types import HistoryLike, Id, InteractionLike, Time
from trimtab.v1.recommendation_pb2 import Event, EventKind, History, Interaction
from trimtab.wire_values import enum_value, id_text, timestamp_fields

EVENT_KINDS = tuple(
    name.removeprefix("EVENT_KIND_").lower() for name, number in EventKind.items() if number
)
"""Short names of the kinds of feedback."""


def interaction(
    user_id: Id,
    item_id: Id,
    *,
    kind: str | int | None = None,
    value: float | None = None,
    time: Time | None = None,
    event_id: str = "",
) -> Interaction:
    """Builds one event of a user.

    Args:
        user_id: id of the user.
        item_id: id of the item.
        kind: "view", "click", "like", "purchase", "rating", "dislike" or "hide"; None if unknown.
        value: value of a rating, on the data set's own scale.
        time: time of the event; None for the server's clock.
        event_id: id that makes recording idempotent; if empty, the server derives it from user,
            item, time and kind.

    Raises:
        ValueError, TypeError: an argument has no place in the message.
    """
    # Nested fields as dicts: the fastest way to build them (1.4 times message by message).
    event: dict[str, object] = {"item_id": id_text(item_id, "item_id")}
    if kind is not None:
        event["kind"] = enum_value(EventKind, "EVENT_KIND", kind)
    if value is not None:
        event["value"] = value
    if time is not None:
        event["time"] = timestamp_fields(time)
    if event_id:
        event["event_id"] = event_id
    return Interaction(user_id=id_text(user_id, "user_id"), event=event)  # type: ignore[arg-type]


def interaction_message(like: InteractionLike) -> Interaction:
    """Builds one event from any form of `InteractionLike`."""
    if isinstance(like, Interaction):
        return like
    if isinstance(like, Mapping):
        return interaction(**like)  # type: ignore[arg-type]
    return interaction(*like)


def history_message(history: HistoryLike) -> History:
    """Builds a history from item ids and events, oldest first.

    Raises:
        TypeError: a text instead of a list of item ids.
    """
    if isinstance(history, History):
        return history
    if isinstance(history, str):
        raise TypeError(f"history: expected a list of item ids, found the text {history!r}")
    events = [
        item if isinstance(item, Event) else Event(item_id=id_text(item, "history"))
        for item in history
    ]
    return History(events=events)

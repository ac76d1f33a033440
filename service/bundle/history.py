"""Chooses the events that the encoder reads, by one rule for stored and for given histories."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np

from service.arrays import Bools, Ints


class EventKind(Enum):
    """The kinds of feedback; see the API's EventKind."""

    UNSPECIFIED = 0
    VIEW = 1
    CLICK = 2
    LIKE = 3
    PURCHASE = 4
    RATING = 5
    DISLIKE = 6
    HIDE = 7


@dataclass(frozen=True, slots=True)
class Event:
    """One interaction.

    Attributes:
        item_id: The item.
        kind: The kind of feedback.
        value: A rating; None without one.
        time_ms: Unix time; None if the caller gave none.
        event_id: "" if the caller gave none.
    """

    item_id: str
    kind: EventKind
    value: float | None = None
    time_ms: int | None = None
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class HistoryRule:
    """The rule by which events become the encoder's input; see BundleManifest.history.

    Attributes:
        max_length: Items that the encoder reads; the newest are kept.
        min_value: Lowest rating that is positive; None if every rating is.
    """

    max_length: int
    min_value: float | None

    def is_positive(self, event: Event) -> bool:
        """Returns True for events that belong in the history, False for negative feedback."""
        if event.kind in (EventKind.DISLIKE, EventKind.HIDE):
            return False
        rated = event.kind in (EventKind.RATING, EventKind.UNSPECIFIED)
        if rated and event.value is not None and self.min_value is not None:
            return event.value >= self.min_value
        return True


class EncoderInput(NamedTuple):
    """The items that the encoder reads.

    Attributes:
        items: Item indices, oldest first, int64 [m].
        ignored_count: Positive events on items that the bundle does not know.
    """

    items: Ints
    ignored_count: int


def in_time_order(events: Sequence[Event]) -> Sequence[Event]:
    """Sorts events by time if each has one; else keeps their order."""
    if any(event.time_ms is None for event in events):
        return events
    return sorted(events, key=lambda event: event.time_ms or 0)


def encoder_input(items: Ints, positive: Bools, rule: HistoryRule) -> EncoderInput:
    """Chooses the items that the encoder reads from events in time order, and keeps that order.

    Negative feedback revokes the earlier positive events on its item. An item is read once, at its
    last place, as in training, where repeated pairs of user and item are one.

    Args:
        items: Item indices, -1 for items that the bundle does not know, int64 [m].
        positive: True for positive events, bool [m].
        rule: The bundle's.
    """
    position = np.arange(len(items))
    keep = positive & (items >= 0)
    ignored = int(np.count_nonzero(positive & (items < 0)))
    revoked = ~positive & (items >= 0)
    if revoked.any():
        last_revoked = np.full(int(items.max()) + 1, -1)
        np.maximum.at(last_revoked, items[revoked], position[revoked])
        keep &= position > last_revoked[items]
    kept = items[keep]
    _, last_from_end = np.unique(kept[::-1], return_index=True)
    kept = kept[np.sort(len(kept) - 1 - last_from_end)]
    return EncoderInput(kept[-rule.max_length :], ignored)

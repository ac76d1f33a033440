"""Groups interactions into calls: by user, bounded in count and bytes, safe to send twice."""

import itertools
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from trimtab.argument_types import InteractionLike
from trimtab.event_messages import interaction_message
from trimtab.v1.recommendation_pb2 import (
    Interaction,
    RecordInteractionsRequest,
    RecordInteractionsResponse,
)

MAX_CALL_EVENTS = 10_000
"""Most events in one RecordInteractions call: the server's limit."""
CALL_EVENTS = 2_000
"""Default number of events in one call; small enough that a busy server can serve other calls
between two of them."""
WINDOW_EVENTS = 50_000
"""Events that are read ahead and grouped by user at a time. More events give fuller calls and need
more memory."""
MAX_CALL_BYTES = 3 * 2**20
"""Most bytes in one call; gRPC servers accept messages of up to 4 MiB by default."""
CALLS_IN_FLIGHT = 4
"""Default number of calls at a time."""


@dataclass(slots=True)
class RecordTotals:
    """Counts of recorded interactions."""

    sent_count: int = 0
    """Events that were sent and answered."""
    accepted_count: int = 0
    """Events that the server stored."""
    duplicate_count: int = 0
    """Events that the server had stored before."""
    unknown_item_count: int = 0
    """Accepted events with items that the default bundle does not contain."""
    call_count: int = 0
    """Calls that were answered."""

    def add_call(self, sent_count: int, response: RecordInteractionsResponse) -> None:
        """Adds the counts of one answered call."""
        self.sent_count += sent_count
        self.accepted_count += response.accepted_count
        self.duplicate_count += response.duplicate_count
        self.unknown_item_count += response.unknown_item_count
        self.call_count += 1

    def add(self, other: "RecordTotals") -> None:
        """Adds the counts of other calls."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """Sizes, deadline and progress callback of one recording."""

    call_events: int
    """Events in one call, from 1 to `MAX_CALL_EVENTS`."""
    calls_in_flight: int
    """Calls at a time, at least 1."""
    timeout_s: float
    """Deadline of each call, in seconds."""
    progress: Callable[[RecordTotals], object] | None
    """Called with the totals so far after each job or call."""

    def __post_init__(self) -> None:
        if not 1 <= self.call_events <= MAX_CALL_EVENTS:
            raise ValueError(
                f"call_events: expected 1 to {MAX_CALL_EVENTS:,}, found {self.call_events}"
            )
        if self.calls_in_flight < 1:
            raise ValueError(f"calls_in_flight: expected at least 1, found {self.calls_in_flight}")


Job = list[RecordInteractionsRequest]
"""Calls that must be sent one after the other; different jobs of a window have different users."""


def note_totals(error: BaseException, totals: RecordTotals) -> None:
    """Adds a note to an error that says how many interactions were recorded before it."""
    error.add_note(f"{totals.sent_count:,} interactions were recorded before this")


def windows(
    interactions: Iterable[InteractionLike], size: int = WINDOW_EVENTS
) -> Iterator[list[Interaction]]:
    """Reads interactions in windows of `size` and adds an event id to each that needs one.

    The server derives the id of an event without id and time from its own clock, so a call that is
    sent twice would count twice.
    """
    seed = secrets.token_hex(8)
    numbers = itertools.count()
    stream = iter(interactions)
    while window := [interaction_message(like) for like in itertools.islice(stream, size)]:
        yield [_identified(message, f"{seed}-{next(numbers)}") for message in window]


def jobs(window: Sequence[Interaction], call_events: int) -> Iterator[Job]:
    """Groups a window by user and packs whole users into calls of about `call_events` events.

    A user with more events gets a separate call, or several if the events do not fit into one.
    """
    by_user: dict[str, list[Interaction]] = {}
    for message in window:
        by_user.setdefault(message.user_id, []).append(message)
    packed: list[Interaction] = []
    for events in by_user.values():
        if packed and len(packed) + len(events) > call_events:
            yield _calls(packed)
            packed = []
        packed += events
    if packed:
        yield _calls(packed)


def _identified(message: Interaction, event_id: str) -> Interaction:
    event = message.event
    if event.event_id or event.HasField("time"):
        return message
    copy = Interaction()  # the caller's own message must not change
    copy.CopyFrom(message)
    copy.event.event_id = event_id
    return copy


def _calls(events: Sequence[Interaction]) -> Job:
    request = RecordInteractionsRequest(interactions=events)
    if len(events) <= MAX_CALL_EVENTS and (
        len(events) == 1 or request.ByteSize() <= MAX_CALL_BYTES
    ):
        return [request]
    half = len(events) // 2 if len(events) <= MAX_CALL_EVENTS else MAX_CALL_EVENTS
    return _calls(events[:half]) + _calls(events[half:])

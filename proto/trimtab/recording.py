"""Many interactions as few calls: grouped by user, bounded in count and bytes, safe to send twice."""

import itertools
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trimtab.messages import InteractionLike, interaction_message
from trimtab.v1.recommendation_pb2 import (
    Interaction,
    RecordInteractionsRequest,
    RecordInteractionsResponse,
)

MAX_CALL_EVENTS = 10_000
# Small enough that other calls find a turn between two of them on a busy server.
CALL_EVENTS = 2_000
# Read ahead and grouped by user at a time.
WINDOW_EVENTS = 50_000
# gRPC servers refuse messages beyond 4 MiB unless told otherwise.
MAX_CALL_BYTES = 3 * 2**20
CALLS_IN_FLIGHT = 4


@dataclass(slots=True)
class RecordTotals:
    """What became of recorded interactions."""

    sent_count: int = 0
    """Events that were sent and answered for."""
    accepted_count: int = 0
    duplicate_count: int = 0
    """Events that the server had seen before."""
    unknown_item_count: int = 0
    """Accepted, but of items that the default bundle does not know."""
    call_count: int = 0

    def add_call(self, sent_count: int, response: RecordInteractionsResponse) -> None:
        """Counts one answered call."""
        self.sent_count += sent_count
        self.accepted_count += response.accepted_count
        self.duplicate_count += response.duplicate_count
        self.unknown_item_count += response.unknown_item_count
        self.call_count += 1

    def add(self, other: "RecordTotals") -> None:
        """Adds what other calls came to."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


Job = list[RecordInteractionsRequest]
"""Calls that have to follow one another; different jobs of a window hold different users."""


def check_sizes(call_events: int, calls_in_flight: int) -> None:
    """Refuses a size that the server would refuse, or that would never send anything."""
    if not 1 <= call_events <= MAX_CALL_EVENTS:
        raise ValueError(f"call_events: {call_events} found, expected 1 to {MAX_CALL_EVENTS:,}")
    if calls_in_flight < 1:
        raise ValueError(f"calls_in_flight: {calls_in_flight} found, expected at least 1")


def note_totals(error: BaseException, totals: RecordTotals) -> None:
    """Notes on an error how far recording came."""
    error.add_note(f"{totals.sent_count:,} interactions were recorded before this")


def windows(
    interactions: Iterable[InteractionLike], size: int = WINDOW_EVENTS
) -> Iterator[list[Interaction]]:
    """Reads interactions ahead, a window at a time, and gives each that needs one an event id.

    Without a time an event's id would be derived from the server's clock, so a retried call would
    count twice.
    """
    seed = secrets.token_hex(8)
    numbers = itertools.count()
    stream = iter(interactions)
    while window := [interaction_message(like) for like in itertools.islice(stream, size)]:
        yield [_identified(message, f"{seed}-{next(numbers)}") for message in window]


def jobs(window: Sequence[Interaction], call_events: int) -> Iterator[Job]:
    """Groups a window by user and packs whole users into calls of about `call_events` events.

    A user with more than that has a call alone, and more than one call only past what a call may
    hold.
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
    copy = Interaction()  # the caller's own message stays as it is
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

import time
from collections import defaultdict

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trimtab import Client, Internal, interaction
from trimtab.recording import MAX_CALL_BYTES, MAX_CALL_EVENTS, jobs, windows
from trimtab.v1.recommendation_pb2 import (
    Event,
    Interaction,
    RecordInteractionsRequest,
    RecordInteractionsResponse,
)

from tests.support.fake_server import FakeServer, fault


def _received(fake: FakeServer) -> dict[str, list[str]]:
    """Returns the item ids of each user, in the order received."""
    items = defaultdict(list)
    for request in fake.requests:
        for message in request.interactions:
            items[message.user_id].append(message.event.item_id)
    return items


def test_events_reach_the_server_once_grouped_by_user_and_in_order(
    client: Client, fake: FakeServer
) -> None:
    events = [(i % 7, i) for i in range(1000)]
    totals = client.record(events, call_events=300)
    assert _received(fake) == {
        str(user): [str(i) for i in range(1000) if i % 7 == user] for user in range(7)
    }
    assert [len(request.interactions) for request in fake.requests] != [1000]
    assert all(len(request.interactions) <= 300 for request in fake.requests)
    assert (totals.sent_count, totals.call_count) == (1000, len(fake.requests))
    assert totals.accepted_count == 1000 - totals.call_count
    assert totals.duplicate_count == totals.call_count


def test_a_users_events_are_not_split_below_the_servers_limit(
    client: Client, fake: FakeServer
) -> None:
    client.record([(i % 3, i) for i in range(900)], call_events=10)
    assert [len({m.user_id for m in request.interactions}) for request in fake.requests] == [
        1,
        1,
        1,
    ]


def test_a_user_with_more_events_than_a_call_may_hold_is_sent_in_order(
    client: Client, fake: FakeServer
) -> None:
    client.record(((1, i) for i in range(25_000)), call_events=MAX_CALL_EVENTS)
    assert [len(request.interactions) for request in fake.requests] == [10_000, 10_000, 5_000]
    assert _received(fake) == {"1": [str(i) for i in range(25_000)]}


def test_windows_follow_one_another_so_that_a_user_in_both_stays_in_order(
    client: Client, fake: FakeServer
) -> None:
    written: list[Interaction] = []

    def write(request: RecordInteractionsRequest) -> RecordInteractionsResponse:
        if not written:
            time.sleep(0.5)  # other calls could overtake the first one
        written.extend(request.interactions)
        return RecordInteractionsResponse()

    fake.answers["RecordInteractionsRequest"] = write
    client.record(((0, i) for i in range(60_000)), call_events=MAX_CALL_EVENTS)
    assert [int(message.event.item_id) for message in written] == list(range(60_000))


def test_calls_stay_below_the_size_that_servers_accept() -> None:
    big = [interaction("u" * 250, "i" * 1000, time=i) for i in range(9_000)]
    (job,) = jobs(big, MAX_CALL_EVENTS)
    assert len(job) > 1
    assert all(request.ByteSize() <= MAX_CALL_BYTES for request in job)
    assert [m for request in job for m in request.interactions] == big


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 99))), st.integers(1, 12))
def test_packing_keeps_every_event_once_and_each_users_order(
    events: list[tuple[int, int]], size: int
) -> None:
    window = [interaction(user, item, time=0) for user, item in events]
    calls = [request for job in jobs(window, size) for request in job]
    sent = [message for call in calls for message in call.interactions]
    assert sorted(sent, key=lambda m: m.user_id) == sorted(window, key=lambda m: m.user_id)
    for call in calls:
        assert len(call.interactions) <= size or len({m.user_id for m in call.interactions}) == 1


def test_an_event_without_time_and_id_gets_an_id_that_a_retry_repeats(
    client: Client, fake: FakeServer
) -> None:
    fake.faults = [fault(grpc.StatusCode.UNAVAILABLE)]
    client.record([(1, 2), (1, 2)])
    first, second = fake.requests
    assert first == second
    ids = [message.event.event_id for message in first.interactions]
    assert all(ids)
    assert len(set(ids)) == 2


def test_two_recordings_of_the_same_untimed_pair_are_two_events(
    client: Client, fake: FakeServer
) -> None:
    client.record([(1, 2)])
    client.record([(1, 2)])
    one, other = (request.interactions[0].event.event_id for request in fake.requests)
    assert one != other


def test_an_event_with_a_time_or_an_id_is_sent_as_it_is() -> None:
    own = [interaction(1, 2, time=5), interaction(1, 2, event_id="mine")]
    assert next(windows(own)) == own


def test_the_callers_message_does_not_change() -> None:
    message = Interaction(user_id="1", event=Event(item_id="2"))
    ((sent,),) = windows([message])
    assert sent.event.event_id
    assert not message.event.event_id


def test_no_call_is_sent_without_events(client: Client, fake: FakeServer) -> None:
    assert client.record([]).call_count == 0
    assert fake.requests == []


@pytest.mark.usefixtures("fake")
def test_progress_is_reported_as_calls_are_answered(client: Client) -> None:
    seen: list[int] = []
    client.record(
        ((i, i) for i in range(1000)), call_events=100, progress=lambda t: seen.append(t.sent_count)
    )
    assert len(seen) == 10
    assert seen == sorted(seen)
    assert seen[-1] == 1000


def test_a_failed_call_stops_recording_and_says_how_many_events_were_recorded(
    client: Client, fake: FakeServer
) -> None:
    def answer(request: RecordInteractionsRequest) -> RecordInteractionsResponse:
        return RecordInteractionsResponse(accepted_count=len(request.interactions))

    fake.answers["RecordInteractionsRequest"] = answer
    fake.faults = [
        lambda _: None,
        lambda _: None,
        fault(grpc.StatusCode.INTERNAL, "disk full"),
    ]
    with pytest.raises(Internal, match="disk full") as caught:
        client.record(((i, i) for i in range(1000)), call_events=100, calls_in_flight=1)
    assert caught.value.__notes__ == ["200 interactions were recorded before this"]
    assert len(fake.requests) < 10


def test_an_event_that_cannot_be_read_stops_recording_with_its_reason(client: Client) -> None:
    with pytest.raises(TypeError, match=r"item_id: expected .* found None"):
        client.record([(1, 2), (1, None)])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("call_events", "calls_in_flight"), [(0, 1), (MAX_CALL_EVENTS + 1, 1), (1, 0)]
)
def test_sizes_that_the_server_refuses_are_refused_before(
    client: Client, call_events: int, calls_in_flight: int
) -> None:
    with pytest.raises(ValueError, match=r"expected .* found"):
        client.record([(1, 2)], call_events=call_events, calls_in_flight=calls_in_flight)

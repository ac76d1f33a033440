"""Tests the synchronous client against a real server."""

import threading
import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from trimtab import (
    Client,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    TrimtabError,
    Unavailable,
    Unimplemented,
    from_element_error,
    recommend_request,
    to_rows,
)
from trimtab.errors import ERRORS
from trimtab.v1.recommendation_pb2 import ElementError

from tests.support.fake_server import FakeServer, fault, invalid


def test_a_reply_is_the_message_that_the_server_sent(client: Client, fake: FakeServer) -> None:
    reply = client.recommend(42, n=3, steer={"Film-Noir": 1, "#123": -0.5}, explain=True)
    assert [item.title for item in reply.items] == ["Laura", "Big Sleep, The", "[REC]"]
    assert fake.requests == [
        recommend_request(42, n=3, steer=["Film-Noir=+1", "#123=-0.5"], explain=True)
    ]


def test_every_argument_of_recommend_reaches_the_server(client: Client, fake: FakeServer) -> None:
    arguments: dict[str, Any] = {
        "n": 7,
        "history": ["1", 2],
        "steer": "Film-Noir:set=2",
        "shares": ["Drama<=0.5"],
        "max_relevance_loss": 0.25,
        "mode": "reconstruct",
        "filter": {"genres": ["Comedy", "Drama"]},
        "filter_out": {"year": (None, 1950)},
        "exclude": [9],
        "explain": True,
        "include_unsteered": True,
        "include_report": True,
        "bundle": "stable",
        "request_id": "mine",
        "unit_id": "u",
        "context": {"page": "home"},
        "page_token": "next",
        "priority": "high",
    }
    client.recommend("42", **arguments, timeout=3)
    expected = recommend_request("42", **arguments)
    assert fake.requests == [expected]
    assert {field.name for field, _ in expected.ListFields()} == set(
        expected.DESCRIPTOR.fields_by_name
    )


def test_each_method_calls_its_rpc(client: Client, fake: FakeServer) -> None:
    client.similar_items(50, n=3, steer="#1=+1", filter={"genres": "Drama"}, bundle="b")
    assert client.forget_user(42).found
    assert client.search_concepts("noir", n=5, bundle="b").results[0].concept.name == "Film-Noir"
    assert client.get_neuron(7, bundle="b").card.labels[0].text == "noir, crime"
    assert client.inspect_user(42, history=[1], bundle="b").history[0].item_id == "50"
    assert client.contrast([1, "2"], [3], n=5, bundle="b").neurons[0].neuron == 7
    assert client.contrast(["50"], ["60"], items=True).concepts[0].concept == "Film-Noir"
    assert client.list_bundles().bundles[0].labels == ["stable"]
    similar, forget, search, neuron, inspect, users, items, _ = fake.requests
    assert (similar.item_id, similar.n, similar.steering.edits[0].neuron, similar.bundle) == (
        "50",
        3,
        1,
        "b",
    )
    assert similar.filter.all_of[0].values == ["Drama"]
    assert forget.user_id == "42"
    assert (search.query, search.n, search.bundle) == ("noir", 5, "b")
    assert (neuron.neuron, neuron.bundle) == (7, "b")
    assert (inspect.user_id, inspect.history.events[0].item_id, inspect.bundle) == ("42", "1", "b")
    assert (users.left.user_ids, users.right.user_ids, users.n, users.bundle) == (
        ["1", "2"],
        ["3"],
        5,
        "b",
    )
    assert (items.left.item_ids, items.right.item_ids, items.left.user_ids) == (["50"], ["60"], [])


def test_concepts_are_read_page_by_page(client: Client, fake: FakeServer) -> None:
    concepts = client.list_concepts(bundle="b", page_size=2)
    assert next(concepts).name == "concept 0"
    assert len(fake.requests) == 1
    assert [concept.name for concept in concepts] == [f"concept {i}" for i in range(1, 5)]
    assert [(request.page_size, request.bundle) for request in fake.requests] == [(2, "b")] * 3


def test_a_batch_of_any_size_is_sent_in_calls_of_256_and_answered_in_order(
    client: Client, fake: FakeServer
) -> None:
    reply = client.batch_recommend(recommend_request(i) for i in range(600))
    assert [result.response.request_id for result in reply.results] == [str(i) for i in range(600)]
    assert [len(request.requests) for request in fake.requests] == [256, 256, 88]


def test_an_invalid_request_names_the_invalid_field(client: Client, fake: FakeServer) -> None:
    fake.faults = [
        invalid(
            ("steering.edits[0].strength", "found NaN, expected a finite number"),
            ("n", "found 0, expected 1 to 1000"),
            request_id="r-9",
        )
    ]
    with pytest.raises(InvalidArgument) as caught:
        client.recommend(42, n=0, steer={"Film-Noir": float("nan")})
    assert caught.value.violations == (
        FieldViolation("steering.edits[0].strength", "found NaN, expected a finite number"),
        FieldViolation("n", "found 0, expected 1 to 1000"),
    )
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.message == (
        "steering.edits[0].strength: found NaN, expected a finite number;"
        " n: found 0, expected 1 to 1000"
    )
    assert caught.value.request_id == "r-9"
    assert str(caught.value).endswith("(request r-9)")


def test_an_invalid_request_without_details_keeps_the_servers_message(
    client: Client, fake: FakeServer
) -> None:
    fake.faults = [fault(grpc.StatusCode.INVALID_ARGUMENT, "no user and no history")]
    with pytest.raises(InvalidArgument, match=r"^no user and no history$") as caught:
        client.recommend()
    assert caught.value.violations == ()


@pytest.mark.parametrize("details", [b"\xff\xff", b"\x08\x05"], ids=["no message", "another code"])
def test_details_that_cannot_be_read_do_not_hide_the_error(
    client: Client, fake: FakeServer, details: bytes
) -> None:
    def abort(context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "bad")

    fake.faults = [abort]
    with pytest.raises(InvalidArgument, match=r"^bad$"):
        client.recommend(42)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(code, kind) for code, kind in ERRORS.items() if code is not grpc.StatusCode.UNAVAILABLE],
    ids=lambda value: getattr(value, "name", ""),
)
def test_each_status_code_has_its_error(
    client: Client, fake: FakeServer, code: grpc.StatusCode, kind: type[TrimtabError]
) -> None:
    fake.faults = [fault(code, "says why")]
    with pytest.raises(kind) as caught:
        client.recommend(42, request_id="mine")
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.message, caught.value.request_id) == (
        code,
        "says why",
        "mine",
    )


def test_every_status_code_except_ok_has_an_error_class() -> None:
    assert set(ERRORS) == set(grpc.StatusCode) - {grpc.StatusCode.OK}
    assert {
        ERRORS[kind.code]
        for kind in (NotFound, FailedPrecondition, ResourceExhausted, Unimplemented)
    } == {
        NotFound,
        FailedPrecondition,
        ResourceExhausted,
        Unimplemented,
    }


def test_a_batch_element_has_the_same_error_as_a_single_call() -> None:
    element = ElementError(code=3, message="found 0, expected 1 to 1000", field="n")
    error = from_element_error(element)
    assert isinstance(error, InvalidArgument)
    assert error.violations == (FieldViolation("n", "found 0, expected 1 to 1000"),)
    assert isinstance(from_element_error(ElementError(code=5, message="gone")), NotFound)
    assert (
        type(from_element_error(ElementError(code=99, message="?")))
        is ERRORS[grpc.StatusCode.UNKNOWN]
    )


def test_every_call_has_a_deadline(fake: FakeServer) -> None:
    with Client(fake.target) as client, Client(fake.target, timeout=60) as patient:
        client.recommend(42)
        client.recommend(42, timeout=1.5)
        client.record([(1, 2)])
        patient.recommend(42)
    default, own, recording, patients = fake.remaining_s
    # gRPC sends a deadline in whole units, which may add a few milliseconds.
    assert 4 < default <= 5.1
    assert 0.5 < own <= 1.6
    assert 29 < recording <= 30.1
    assert 59 < patients <= 60.1


def wait_for(release: threading.Event) -> None:
    """Blocks a call of the server until the test ends."""
    release.wait(5)


def test_a_server_that_does_not_answer_in_time_raises_deadline_exceeded(
    client: Client, fake: FakeServer
) -> None:
    release = threading.Event()
    fake.faults = [lambda _: wait_for(release)]
    start = time.perf_counter()
    with pytest.raises(DeadlineExceeded, match=r"gave no answer within 0.2 s"):
        client.recommend(42, timeout=0.2)
    assert time.perf_counter() - start < 2
    release.set()


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_deadline_that_no_call_can_meet_is_refused(client: Client, timeout: float) -> None:
    with pytest.raises(ValueError, match="expected seconds above 0"):
        client.recommend(42, timeout=timeout)
    with pytest.raises(ValueError, match="expected seconds above 0"):
        Client(timeout=timeout)


def test_a_client_without_channels_or_target_is_refused() -> None:
    with pytest.raises(ValueError, match="channels: expected at least 1, found 0"):
        Client(channels=0)
    with pytest.raises(ValueError, match="target"):
        Client("")


def test_a_call_that_finds_the_server_unavailable_twice_is_sent_a_third_time(
    client: Client, fake: FakeServer
) -> None:
    fake.faults = [fault(grpc.StatusCode.UNAVAILABLE)] * 2
    assert len(client.recommend(42).items) == 3
    assert len(fake.requests) == 3


def test_a_call_fails_after_four_attempts_if_the_server_stays_unavailable(
    client: Client, fake: FakeServer
) -> None:
    fake.faults = [fault(grpc.StatusCode.UNAVAILABLE, "starting")] * 9
    with pytest.raises(Unavailable, match="is unavailable: starting"):
        client.recommend(42)
    assert len(fake.requests) == 4


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ],
    ids=lambda code: code.name,
)
def test_only_unavailable_is_tried_again(
    client: Client, fake: FakeServer, code: grpc.StatusCode
) -> None:
    fake.faults = [fault(code)]
    with pytest.raises(ERRORS[code]):
        client.recommend(42)
    assert len(fake.requests) == 1


def test_the_error_names_a_server_that_cannot_be_reached() -> None:
    with (
        Client("127.0.0.1:1") as client,
        pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 is unavailable"),
    ):
        client.recommend(42)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_calls_are_spread_over_as_many_connections_as_there_are_channels(
    fake: FakeServer, channels: int
) -> None:
    with Client(fake.target, channels=channels) as client:
        for _ in range(3 * channels):
            client.recommend(42)
    assert len(set(fake.peers)) == channels
    assert fake.peers[:channels] == fake.peers[channels : 2 * channels]


def test_two_clients_of_one_process_have_connections_of_their_own(fake: FakeServer) -> None:
    with Client(fake.target, channels=2) as one, Client(fake.target, channels=2) as other:
        for client in (one, other, one, other):
            client.recommend(42)
    assert len(set(fake.peers)) == 4


def test_threads_share_one_client(client: Client, fake: FakeServer) -> None:
    threads = [
        threading.Thread(target=lambda: [client.recommend(i) for i in range(10)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fake.requests) == 80
    assert {fake.peers.count(peer) for peer in set(fake.peers)} == {20}


def test_a_token_is_sent_with_every_call(fake: FakeServer) -> None:
    with Client(fake.target, token="secret") as client:
        client.recommend(42)
    with Client(fake.target) as client:
        client.recommend(42)
    assert fake.metadata[0]["authorization"] == "Bearer secret"
    assert "authorization" not in fake.metadata[1]


def test_health_is_serving_not_serving_or_unknown(client: Client) -> None:
    assert client.health() == "SERVING"
    assert client.health("trimtab.v1.BundleService") == "NOT_SERVING"
    assert client.health("trimtab.v1.PolicyService") == "SERVICE_UNKNOWN"


def test_the_status_holds_each_services_health_and_the_bundles(
    client: Client, fake: FakeServer
) -> None:
    status = client.status()
    assert status.serving
    assert status.services["trimtab.v1.ConceptService"] == "SERVING"
    assert status.services["trimtab.v1.ExperimentService"] == "SERVICE_UNKNOWN"
    assert status.bundles[0].bundle_id == "ab" * 32
    assert 0 < status.latency_ms < 5000
    fake.faults = [fault(grpc.StatusCode.INTERNAL, "broken")]
    assert client.status().bundles_error == "broken"


def test_a_server_that_starts_late_is_waited_for(client: Client, fake: FakeServer) -> None:
    fake.checks.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    start = time.monotonic()
    assert not client.wait_until_serving(0.3)
    assert 0.25 < time.monotonic() - start < 2
    timer = threading.Timer(0.3, fake.checks.set, ["", health_pb2.HealthCheckResponse.SERVING])
    timer.start()
    assert client.wait_until_serving(10)
    timer.join()


def test_waiting_for_a_server_that_cannot_be_reached_ends_in_time() -> None:
    start = time.monotonic()
    with Client("127.0.0.1:1") as client:
        assert not client.wait_until_serving(0.5)
    assert time.monotonic() - start < 3


def test_rows_have_every_field_and_none_where_nothing_is_set(client: Client) -> None:
    rows = to_rows(client.recommend(42).items)
    assert [row["item_id"] for row in rows] == ["2", "1", "3"]
    assert [row["unsteered_rank"] for row in rows] == [3, 2, None]
    assert rows[0]["reasons"] == [
        {"neuron": None, "concept": None, "kind": "REASON_KIND_UNSTEERED", "contribution": 0.5},
        {"neuron": None, "concept": "Film-Noir", "kind": None, "contribution": 0.25},
        {"neuron": 123, "concept": None, "kind": None, "contribution": -0.125},
    ]
    assert {tuple(row) for row in rows} == {tuple(rows[0])}


@pytest.mark.usefixtures("fake")
def test_rows_of_bundles_hold_nested_messages_and_maps(client: Client) -> None:
    bundles = client.list_bundles().bundles
    bundles[0].manifest.provenance.metrics["ndcg@20"] = 0.35
    (row,) = to_rows(bundles)
    assert row["manifest"]["dimensions"]["n_items"] == 3706
    assert row["manifest"]["provenance"]["metrics"] == {"ndcg@20": 0.35}
    assert row["manifest"]["index"] is None


def test_a_data_frame_accepts_the_rows(client: Client) -> None:
    polars = pytest.importorskip("polars", reason="polars is part of the training extra")
    frame = polars.DataFrame(to_rows(client.recommend(42).items))
    assert frame["title"].to_list() == ["Laura", "Big Sleep, The", "[REC]"]


def test_an_error_inside_the_server_is_internal_and_keeps_its_id(
    client: Client, fake: FakeServer
) -> None:
    fake.faults = [fault(grpc.StatusCode.INTERNAL, "internal fault 12ab: see the server's log")]
    with pytest.raises(Internal, match="12ab") as caught:
        client.recommend(42)
    assert isinstance(caught.value.__cause__, grpc.RpcError)

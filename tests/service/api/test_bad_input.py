"""Tests bad input: the answer names the field, what was expected and found; the server goes on."""

from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trimtab.v1 import concept_pb2, concept_pb2_grpc, recommendation_pb2_grpc
from trimtab.v1 import recommendation_pb2 as pb
from trimtab.v1 import steering_pb2 as sp

from tests.support.servers import Served

UNKNOWN: Any = 99
"""A number that no enum of the API has."""
RECOMMEND = "/trimtab.v1.RecommendationService/Recommend"


@pytest.fixture(scope="module")
def stub(served: Served) -> recommendation_pb2_grpc.RecommendationServiceStub:
    return recommendation_pb2_grpc.RecommendationServiceStub(served.channel)


@pytest.fixture(autouse=True)
def the_server_goes_on(stub: Any) -> Iterator[None]:
    yield
    assert stub.Recommend(pb.RecommendRequest(user_id="u", n=1)).items


def refusal(call: Any, request: Any) -> tuple[grpc.StatusCode, str, str]:
    """Status code, field at fault and description of a call that must fail."""
    with pytest.raises(grpc.RpcError) as failure:
        call(request)
    error = failure.value
    status = rpc_status.from_call(error)
    if status is None:
        return error.code(), "", error.details() or ""
    detail = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(detail)
    (violation,) = detail.field_violations
    assert violation.description in (error.details() or "")
    return error.code(), violation.field, violation.description


def steering(**fields: Any) -> pb.RecommendRequest:
    return pb.RecommendRequest(user_id="u", n=5, steering=sp.Steering(**fields))


def one_edit(**fields: Any) -> pb.RecommendRequest:
    return steering(edits=[sp.Edit(**fields)])


def budget(max_relevance_loss: float, **fields: Any) -> pb.RecommendRequest:
    return steering(budget=sp.Budget(max_relevance_loss=max_relevance_loss), **fields)


def targets(**fields: Any) -> pb.RecommendRequest:
    return steering(targets=[sp.TargetShare(**fields)])


CASES = [
    (one_edit(neuron=1, strength=float("nan")), "steering.edits[0].strength", "found nan"),
    (one_edit(neuron=1, strength=float("inf")), "steering.edits[0].strength", "found inf"),
    (one_edit(concept="Drama", strength=float("-inf")), "steering.edits[0].strength", "finite"),
    (one_edit(neuron=1), "steering.edits[0].strength", "expected a number for ADD, found none"),
    (
        one_edit(neuron=1, operation=sp.OPERATION_BOOST, strength=0.5),
        "steering.edits[0]",
        "expected a concept that items carry, found BOOST of #1",
    ),
    (
        one_edit(
            weights=sp.WeightedNeurons(neurons=[sp.WeightedNeuron(neuron=1, weight=1)]),
            operation=sp.OPERATION_BOOST,
            strength=0.5,
        ),
        "steering.edits[0]",
        "expected a concept that items carry, found BOOST of weights",
    ),
    (
        one_edit(concept="Drama", operation=sp.OPERATION_BOOST, strength=float("nan")),
        "steering.edits[0].strength",
        "found nan",
    ),
    (
        one_edit(concept="Drama", operation=sp.OPERATION_BOOST),
        "steering.edits[0].strength",
        "expected a number for BOOST, found none",
    ),
    (one_edit(strength=1.0), "steering.edits[0]", "found no target"),
    (
        one_edit(neuron=128, strength=1.0),
        "steering.edits[0].neuron",
        "expected 0 to 127, found 128",
    ),
    (one_edit(neuron=2**32 - 1, strength=1.0), "steering.edits[0].neuron", "expected 0 to 127"),
    (one_edit(concept="drama", strength=1.0), "steering.edits[0].concept", "nearest: Drama"),
    (
        one_edit(concept="Documentry", strength=1.0),
        "steering.edits[0].concept",
        "nearest: Documentary",
    ),
    (one_edit(concept="", strength=1.0), "steering.edits[0].concept", "found ''"),
    (one_edit(concept="x" * 100_000, strength=1.0), "steering.edits[0].concept", "..."),
    (
        one_edit(neuron=1, strength=1.5, operation=sp.OPERATION_BLEND),
        "steering.edits[0].strength",
        "expected 0 to 1 for BLEND",
    ),
    (one_edit(neuron=1, strength=1.0, operation=77), "steering.edits[0].operation", "found 77"),
    (one_edit(neuron=1, strength=1.0, unit=9), "steering.edits[0].unit", "found 9"),
    (
        one_edit(weights=sp.WeightedNeurons(), strength=1.0),
        "steering.edits[0].weights",
        "found no neurons",
    ),
    (
        one_edit(weights=sp.WeightedNeurons(neurons=[sp.WeightedNeuron(neuron=1)]), strength=1.0),
        "steering.edits[0].weights",
        "not all 0",
    ),
    (
        one_edit(
            weights=sp.WeightedNeurons(neurons=[sp.WeightedNeuron(neuron=500, weight=1)]),
            strength=1,
        ),
        "steering.edits[0].weights.neurons[0].neuron",
        "found 500",
    ),
    (
        one_edit(
            weights=sp.WeightedNeurons(neurons=[sp.WeightedNeuron(neuron=5, weight=1)] * 2),
            strength=1.0,
        ),
        "steering.edits[0].weights",
        "twice",
    ),
    (
        one_edit(
            weights=sp.WeightedNeurons(neurons=[sp.WeightedNeuron(neuron=5, weight=float("nan"))]),
            strength=1,
        ),
        "steering.edits[0].weights",
        "finite",
    ),
    (
        steering(edits=[sp.Edit(neuron=1, strength=0.1)] * 65),
        "steering.edits",
        "expected at most 64 edits, found 65",
    ),
    (steering(mode=9), "steering.mode", "found 9"),
    (budget(float("nan")), "steering.budget.max_relevance_loss", "expected 0 to 1, found nan"),
    (budget(-0.1), "steering.budget.max_relevance_loss", "expected 0 to 1, found -0.1"),
    (budget(1.5), "steering.budget.max_relevance_loss", "expected 0 to 1, found 1.5"),
    (budget(0.1, mode=sp.MODE_RECONSTRUCT), "steering.budget", "found MODE_RECONSTRUCT too"),
    (targets(), "steering.targets[0].concept", "found ''"),
    (targets(concept="Drama"), "steering.targets[0]", "found no bound"),
    (targets(concept="Dramma", min_share=0.1), "steering.targets[0].concept", "nearest: Drama"),
    (
        targets(concept="Drama", min_share=float("nan")),
        "steering.targets[0].min_share",
        "found nan",
    ),
    (targets(concept="Drama", min_share=-0.1), "steering.targets[0].min_share", "expected 0 to 1"),
    (
        targets(concept="Drama", max_share=float("inf")),
        "steering.targets[0].max_share",
        "found inf",
    ),
    (
        targets(concept="Drama", min_share=0.5, max_share=0.25),
        "steering.targets[0].min_share",
        "expected at most max_share, 0.25, found 0.5",
    ),
    (
        targets(concept="Drama", min_times=-1),
        "steering.targets[0].min_times",
        "expected a finite number from 0",
    ),
    (
        targets(concept="Drama", max_times=float("nan")),
        "steering.targets[0].max_times",
        "found nan",
    ),
    (
        targets(concept="Drama", max_times=float("inf")),
        "steering.targets[0].max_times",
        "found inf",
    ),
    (
        targets(concept="Drama", min_times=2, max_times=0.5),
        "steering.targets[0].min_times",
        "expected at most max_times, 0.5, found 2",
    ),
    (
        steering(targets=[sp.TargetShare(concept="Drama", min_share=0.1)] * 2),
        "steering.targets[1].concept",
        "found 'Drama' twice",
    ),
    (
        steering(targets=[sp.TargetShare(concept="Drama", min_share=0.1)] * 17),
        "steering.targets",
        "expected at most 16 targets, found 17",
    ),
    (pb.RecommendRequest(), "user_id", "found neither a user_id nor a history"),
    (pb.RecommendRequest(user_id="u"), "n", "expected 1 to 1000, found 0"),
    (pb.RecommendRequest(user_id="u", n=1_001), "n", "expected 1 to 1000, found 1001"),
    (pb.RecommendRequest(user_id="u", n=2**32 - 1), "n", "expected 1 to 1000"),
    (
        pb.RecommendRequest(user_id="u" * 257, n=1),
        "user_id",
        "expected 1 to 256 bytes, found 257 bytes",
    ),
    (pb.RecommendRequest(user_id="é" * 129, n=1), "user_id", "found 258 bytes"),
    (pb.RecommendRequest(user_id="u", n=1, bundle="nothing"), "bundle", "found 'nothing'"),
    (
        pb.RecommendRequest(user_id="u", n=1, exclude_item_ids=["x"] * 10_001),
        "exclude_item_ids",
        "expected at most 10000 ids, found 10001",
    ),
    (
        pb.RecommendRequest(n=1, history=pb.History(events=[pb.Event(item_id="a"), pb.Event()])),
        "history.events[1].item_id",
        "found 0 bytes",
    ),
    (
        pb.RecommendRequest(
            n=1, history=pb.History(events=[pb.Event(item_id="a", value=float("nan"))])
        ),
        "history.events[0].value",
        "found nan",
    ),
    (
        pb.RecommendRequest(n=1, history=pb.History(events=[pb.Event(item_id="a", kind=UNKNOWN)])),
        "history.events[0].kind",
        "found 99",
    ),
]
FILTERS = [
    (
        pb.Condition(attribute="colour", values=["red"]),
        ".attribute",
        "expected one of: genres, year, studio; found 'colour'",
    ),
    (pb.Condition(values=["red"]), ".attribute", "found ''"),
    (pb.Condition(attribute="genres"), "", "expected values"),
    (pb.Condition(attribute="genres", min=1), "", "has texts"),
    (pb.Condition(attribute="year", values=["1990"]), "", "has numbers"),
    (pb.Condition(attribute="year"), "", "expected min, max or both"),
    (pb.Condition(attribute="year", min=2000, max=1990), "", "found min 2000 above max 1990"),
    (pb.Condition(attribute="year", min=float("nan")), "", "found NaN"),
]


@pytest.mark.parametrize(
    ("request_", "field", "description"), CASES, ids=lambda value: str(value)[:40]
)
def test_a_bad_field_is_named_with_what_was_found_and_expected(
    stub: Any, request_: pb.RecommendRequest, field: str, description: str
) -> None:
    code, found_field, found = refusal(stub.Recommend, request_)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert found_field == field
    assert description in found
    assert len(found) < 1_000


@pytest.mark.parametrize(("condition", "suffix", "description"), FILTERS)
def test_a_bad_filter_is_named_with_its_condition(
    stub: Any, condition: pb.Condition, suffix: str, description: str
) -> None:
    fine = pb.Condition(attribute="year", min=1900)
    request = pb.RecommendRequest(
        user_id="u", n=1, filter=pb.Filter(all_of=[fine], none_of=[fine, condition])
    )
    code, field, found = refusal(stub.Recommend, request)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert field == f"filter.none_of[1]{suffix}"
    assert description in found


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\x0a\x04ab",
        b"\x0a\x02\xff\xfe\x18\x01",  # field 1, a string that is not UTF-8
        b"\x00",
    ],
)
def test_bytes_that_cannot_be_parsed_are_invalid_and_not_unknown(
    served: Served, data: bytes
) -> None:
    raw: Any = served.channel.unary_unary(RECOMMEND)
    code, _, description = refusal(raw, data)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert f"expected a RecommendRequest with text in UTF-8, found {len(data)} bytes" in description
    assert "Exception" not in description


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=80))
def test_random_bytes_never_cause_an_internal_fault(served: Served, data: bytes) -> None:
    raw: Any = served.channel.unary_unary(RECOMMEND)
    call = raw.future(data)
    allowed = (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)
    assert call.code() in allowed


def test_an_unknown_method_is_unimplemented(served: Served) -> None:
    code, _, _ = refusal(
        served.channel.unary_unary("/trimtab.v1.RecommendationService/Nothing"), b""
    )
    assert code == grpc.StatusCode.UNIMPLEMENTED


def test_strange_ids_are_only_ids(stub: Any) -> None:
    for user_id in ("}", "{", "a}:h", "\x00", "*", "名前", "u" * 256, " "):
        interaction = pb.Interaction(user_id=user_id, event=pb.Event(item_id="item-3"))
        stub.RecordInteractions(pb.RecordInteractionsRequest(interactions=[interaction]))
        response = stub.Recommend(pb.RecommendRequest(user_id=user_id, n=1))
        assert response.served_by.source == pb.SOURCE_PERSONAL
        assert stub.ForgetUser(pb.ForgetUserRequest(user_id=user_id)).found


def test_bad_interactions_are_refused_whole(stub: Any) -> None:
    good = pb.Interaction(user_id="whole", event=pb.Event(item_id="item-3"))
    for bad, field in [
        (pb.Interaction(event=pb.Event(item_id="item-3")), "interactions[1].user_id"),
        (pb.Interaction(user_id="whole"), "interactions[1].event.item_id"),
        (
            pb.Interaction(user_id="whole", event=pb.Event(item_id="x" * 257)),
            "interactions[1].event.item_id",
        ),
        (
            pb.Interaction(user_id="whole", event=pb.Event(item_id="x", event_id="e" * 257)),
            "interactions[1].event.event_id",
        ),
    ]:
        request = pb.RecordInteractionsRequest(interactions=[good, bad])
        code, found, _ = refusal(stub.RecordInteractions, request)
        assert (code, found) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    too_many = pb.RecordInteractionsRequest(interactions=[good] * 10_001)
    assert refusal(stub.RecordInteractions, too_many)[1] == "interactions"
    assert (
        stub.Recommend(pb.RecommendRequest(user_id="whole", n=1)).served_by.source
        == pb.SOURCE_POPULAR
    )
    assert refusal(stub.ForgetUser, pb.ForgetUserRequest())[1] == "user_id"


def contrast(
    left: Sequence[str] = ("nobody",), right: Sequence[str] = ("nobody",), n: int = 0
) -> Any:
    sets = [concept_pb2.ContrastSet(user_ids=ids) for ids in (left, right)]
    return concept_pb2.ContrastRequest(left=sets[0], right=sets[1], n=n)


def test_bad_questions_about_concepts_are_named(served: Served) -> None:
    stub = concept_pb2_grpc.ConceptServiceStub(served.channel)
    for call, request, field in [
        (stub.GetNeuron, concept_pb2.GetNeuronRequest(neuron=9_999), "neuron"),
        (stub.SearchConcepts, concept_pb2.SearchConceptsRequest(query=" "), "query"),
        (stub.SearchConcepts, concept_pb2.SearchConceptsRequest(query="x" * 300), "query"),
        (stub.SearchConcepts, concept_pb2.SearchConceptsRequest(query="x", n=5_000), "n"),
        (stub.ListConcepts, concept_pb2.ListConceptsRequest(page_size=5_000), "page_size"),
        (stub.ListConcepts, concept_pb2.ListConceptsRequest(page_token="other:3"), "page_token"),
        (stub.InspectUser, concept_pb2.InspectUserRequest(), "user_id"),
        (stub.Contrast, contrast(left=[]), "left"),
        (stub.Contrast, contrast(right=[str(user) for user in range(1_001)]), "right"),
        (stub.Contrast, contrast(left=["x" * 300]), "left.user_ids"),
        (stub.Contrast, contrast(left=["nobody"]), "left"),
        (stub.Contrast, contrast(n=5_000), "n"),
        (stub.ListConcepts, concept_pb2.ListConceptsRequest(bundle="x"), "bundle"),
    ]:
        code, found, _ = refusal(call, request)
        assert (code, found) == (grpc.StatusCode.INVALID_ARGUMENT, field)


def test_a_history_of_a_hundred_thousand_events_is_answered(stub: Any) -> None:
    events = [pb.Event(item_id=f"item-{position % 300}") for position in range(100_000)]
    response = stub.Recommend(pb.RecommendRequest(n=5, history=pb.History(events=events)))
    assert response.served_by.ignored_item_count > 0

"""A gRPC server on a free port that records its requests and gives canned answers."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from trimtab.v1 import (
    bundle_pb2,
    bundle_pb2_grpc,
    concept_pb2,
    concept_pb2_grpc,
    recommendation_pb2,
    recommendation_pb2_grpc,
    steering_pb2,
)

Reply = TypeVar("Reply", bound=Message)
Fault = Callable[[grpc.ServicerContext], None]


def message(kind: Callable[..., Reply], **fields: Any) -> Reply:
    """Builds a message from dicts: protobuf takes them for nested messages, its stubs do not."""
    return kind(**fields)


def fault(code: grpc.StatusCode, message: str = "no") -> Fault:
    """Makes a fault with a status alone."""
    return lambda context: context.abort(code, message)


def invalid(*violations: tuple[str, str], request_id: str = "") -> Fault:
    """Makes INVALID_ARGUMENT with google.rpc details, as the service sends it."""

    def abort(context: grpc.ServicerContext) -> None:
        bad_request = error_details_pb2.BadRequest(
            field_violations=[{"field": name, "description": text} for name, text in violations]
        )
        details = [any_pb2.Any(), any_pb2.Any()]
        details[0].Pack(bad_request)
        details[1].Pack(error_details_pb2.RequestInfo(request_id=request_id))
        status = status_pb2.Status(
            code=grpc.StatusCode.INVALID_ARGUMENT.value[0],
            message="invalid request",
            details=details,
        )
        context.abort_with_status(rpc_status.to_status(status))

    return abort


@dataclass
class FakeServer:
    """What the servicers share."""

    target: str = ""
    requests: list[Any] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)
    remaining_s: list[float] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    checks: health.HealthServicer = field(default_factory=health.HealthServicer)

    def answer(self, request: Message, context: grpc.ServicerContext, default: Reply) -> Reply:
        """Records a request, then fails with the next fault or gives the answer for this kind."""
        self.requests.append(request)
        self.peers.append(context.peer())
        self.remaining_s.append(context.time_remaining())
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        if self.faults:
            self.faults.pop(0)(context)
        answer = self.answers.get(type(request).__name__, default)
        reply: Reply = answer(request) if callable(answer) else answer
        return reply


class Recommendations(recommendation_pb2_grpc.RecommendationServiceServicer):
    def __init__(self, fake: FakeServer) -> None:
        self.fake = fake

    def Recommend(  # noqa: N802  named by the .proto
        self, request: recommendation_pb2.RecommendRequest, context: grpc.ServicerContext
    ) -> recommendation_pb2.RecommendResponse:
        return self.fake.answer(request, context, steered_reply())

    def BatchRecommend(  # noqa: N802  named by the .proto
        self, request: recommendation_pb2.BatchRecommendRequest, context: grpc.ServicerContext
    ) -> recommendation_pb2.BatchRecommendResponse:
        results = [{"response": {"request_id": one.user_id}} for one in request.requests]
        return self.fake.answer(
            request, context, message(recommendation_pb2.BatchRecommendResponse, results=results)
        )

    def SimilarItems(  # noqa: N802  named by the .proto
        self, request: recommendation_pb2.SimilarItemsRequest, context: grpc.ServicerContext
    ) -> recommendation_pb2.SimilarItemsResponse:
        items = [{"item_id": "7", "rank": 1, "score": 0.5, "title": "Heat"}]
        return self.fake.answer(
            request, context, message(recommendation_pb2.SimilarItemsResponse, items=items)
        )

    def RecordInteractions(  # noqa: N802  named by the .proto
        self, request: recommendation_pb2.RecordInteractionsRequest, context: grpc.ServicerContext
    ) -> recommendation_pb2.RecordInteractionsResponse:
        reply = message(
            recommendation_pb2.RecordInteractionsResponse,
            accepted_count=len(request.interactions) - 1,
            duplicate_count=1,
            unknown_item_count=0,
        )
        return self.fake.answer(request, context, reply)

    def ForgetUser(  # noqa: N802  named by the .proto
        self, request: recommendation_pb2.ForgetUserRequest, context: grpc.ServicerContext
    ) -> recommendation_pb2.ForgetUserResponse:
        return self.fake.answer(
            request, context, message(recommendation_pb2.ForgetUserResponse, found=True)
        )


class Concepts(concept_pb2_grpc.ConceptServiceServicer):
    def __init__(self, fake: FakeServer) -> None:
        self.fake = fake

    def ListConcepts(  # noqa: N802  named by the .proto
        self, request: concept_pb2.ListConceptsRequest, context: grpc.ServicerContext
    ) -> concept_pb2.ListConceptsResponse:
        first = int(request.page_token or 0)
        names = [f"concept {i}" for i in range(first, min(first + 2, 5))]
        reply = message(
            concept_pb2.ListConceptsResponse,
            concepts=[
                {"name": name, "attribute": "genres", "item_count": 3, "auc": 0.9} for name in names
            ],
            next_page_token=str(first + 2) if first + 2 < 5 else "",
        )
        return self.fake.answer(request, context, reply)

    def SearchConcepts(  # noqa: N802  named by the .proto
        self, request: concept_pb2.SearchConceptsRequest, context: grpc.ServicerContext
    ) -> concept_pb2.SearchConceptsResponse:
        results = [
            {
                "concept": {"name": "Film-Noir", "attribute": "genres", "item_count": 44},
                "match": 1.0,
            },
            {"neuron": {"neuron": 7, "labels": [{"text": "noir, crime"}]}, "match": 0.5},
        ]
        return self.fake.answer(
            request, context, message(concept_pb2.SearchConceptsResponse, results=results)
        )

    def GetNeuron(  # noqa: N802  named by the .proto
        self, request: concept_pb2.GetNeuronRequest, context: grpc.ServicerContext
    ) -> concept_pb2.GetNeuronResponse:
        return self.fake.answer(
            request, context, message(concept_pb2.GetNeuronResponse, card=neuron_card())
        )

    def InspectUser(  # noqa: N802  named by the .proto
        self, request: concept_pb2.InspectUserRequest, context: grpc.ServicerContext
    ) -> concept_pb2.InspectUserResponse:
        reply = message(
            concept_pb2.InspectUserResponse,
            neurons=[{"neuron": 7, "label": "noir, crime", "activation": 0.25, "strength": 1.5}],
            concepts=[{"concept": "Film-Noir", "level": 0.1, "strength": -0.5}],
            history=[{"item_id": "50", "title": "Usual Suspects, The"}],
            served_by={"bundle_id": "ab" * 32, "source": 1},
        )
        return self.fake.answer(request, context, reply)

    def Contrast(  # noqa: N802  named by the .proto
        self, request: concept_pb2.ContrastRequest, context: grpc.ServicerContext
    ) -> concept_pb2.ContrastResponse:
        reply = message(
            concept_pb2.ContrastResponse,
            neurons=[
                {"neuron": 7, "label": "noir, crime", "left_mean": 0.5, "strength": 2, "auc": 0.75}
            ],
            concepts=[{"concept": "Film-Noir", "right_mean": 0.5, "strength": -2, "auc": 0.25}],
            left_count=2,
            right_count=1,
            ignored_count=1,
        )
        return self.fake.answer(request, context, reply)


class Bundles(bundle_pb2_grpc.BundleServiceServicer):
    def __init__(self, fake: FakeServer) -> None:
        self.fake = fake

    def ListBundles(  # noqa: N802  named by the .proto
        self, request: bundle_pb2.ListBundlesRequest, context: grpc.ServicerContext
    ) -> bundle_pb2.ListBundlesResponse:
        manifest = {
            "provenance": {"data_set": "ml-1m", "recommender": "elsa", "sae": "topk"},
            "dimensions": {"n_items": 3706, "d": 256, "n_neurons": 2048, "k": 32},
        }
        bundles = [{"bundle_id": "ab" * 32, "labels": ["stable"], "manifest": manifest}]
        return self.fake.answer(
            request, context, message(bundle_pb2.ListBundlesResponse, bundles=bundles)
        )


def steered_reply() -> recommendation_pb2.RecommendResponse:
    """Makes a reply of three steered items: one rose, one stayed, one is new."""
    reasons = [
        {"kind": recommendation_pb2.REASON_KIND_UNSTEERED, "contribution": 0.5},
        {"concept": "Film-Noir", "contribution": 0.25},
        {"neuron": 123, "contribution": -0.125},
    ]
    titles = {"1": "Big Sleep, The", "2": "Laura", "3": "[REC]", "4": "Heat"}
    return message(
        recommendation_pb2.RecommendResponse,
        request_id="r-1",
        items=[
            {
                "item_id": "2",
                "title": titles["2"],
                "rank": 1,
                "score": 0.75,
                "unsteered_rank": 3,
                "reasons": reasons,
            },
            {"item_id": "1", "title": titles["1"], "rank": 2, "score": 0.5, "unsteered_rank": 2},
            {"item_id": "3", "title": titles["3"], "rank": 3, "score": 0.25},
        ],
        unsteered=[
            {"item_id": "4", "title": titles["4"], "rank": 1, "score": 0.9},
            {"item_id": "1", "title": titles["1"], "rank": 2, "score": 0.5},
            {"item_id": "2", "title": titles["2"], "rank": 3, "score": 0.4},
        ],
        report={
            "applied_fraction": 0.5,
            "edits": [
                {
                    "target": "Film-Noir",
                    "operation": 1,
                    "raw_strength": 0.3,
                    "level_before": 0.1,
                    "level_after": 0.4,
                    "applied_fraction": 0.5,
                },
                {"target": "#123", "operation": 3, "raw_strength": -0.5, "no_effect": True},
            ],
            "relevance_loss": 0.0325,
            "overlap": 2 / 3,
            "concepts": [
                {
                    "concept": "Film-Noir",
                    "unsteered_share": 0.1,
                    "share": 0.45,
                    "item_share": 1 / 3,
                },
            ],
            "targets": [
                {
                    "concept": "Film-Noir",
                    "met": False,
                    "lift": 0.25,
                    "min_items": 2,
                    "max_items": 3,
                    "items": 1,
                }
            ],
            "bound": steering_pb2.BOUND_BUDGET,
        },
        served_by={
            "bundle_id": "ab" * 32,
            "label_set": "0123456789ab",
            "source": 1,
            "cached": True,
        },
        timing={"total_us": 1500, "store_us": 300, "search_us": 900},
    )


def neuron_card() -> concept_pb2.NeuronCard:
    """Makes a card with a value in every field."""
    return message(
        concept_pb2.NeuronCard,
        neuron=7,
        labels=[{"text": "noir, crime", "method": "tfidf", "score": 0.81}],
        density=0.031,
        unit=0.42,
        quantiles=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        histogram=[50, 20, 10, 5, 0, 1],
        top_items=[{"item_id": "50", "title": "Usual Suspects, The", "value": 0.6}],
        raised_items=[{"item_id": "1", "title": "Big Sleep, The", "value": 0.9}],
        lowered_items=[{"item_id": "9", "title": "Babe", "value": -0.7}],
        nearest=[{"neuron": 12, "label": "thriller", "cosine": 0.44}],
    )


@contextmanager
def run_fake() -> Iterator[FakeServer]:
    """Runs a fake server until the end of the block."""
    fake = FakeServer()
    server = grpc.server(ThreadPoolExecutor(8))
    recommendation_pb2_grpc.add_RecommendationServiceServicer_to_server(
        Recommendations(fake), server
    )
    # The methods that are not overridden answer UNIMPLEMENTED; the stubs call them abstract.
    concepts = Concepts(fake)  # type: ignore[abstract]
    bundles = Bundles(fake)  # type: ignore[abstract]
    concept_pb2_grpc.add_ConceptServiceServicer_to_server(concepts, server)
    bundle_pb2_grpc.add_BundleServiceServicer_to_server(bundles, server)
    checks = fake.checks
    for name in ("", "trimtab.v1.RecommendationService", "trimtab.v1.ConceptService"):
        checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    checks.set("trimtab.v1.BundleService", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    fake.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield fake
    server.stop(None).wait()

"""How a client reaches a server: channel options, retries, credentials, and which channel is next."""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health_pb2_grpc

from trimtab.v1 import bundle_pb2, concept_pb2, experiment_pb2, policy_pb2, recommendation_pb2
from trimtab.v1.bundle_pb2 import LoadedBundle
from trimtab.v1.bundle_pb2_grpc import BundleServiceStub
from trimtab.v1.concept_pb2_grpc import ConceptServiceStub
from trimtab.v1.recommendation_pb2 import RecommendRequest
from trimtab.v1.recommendation_pb2_grpc import RecommendationServiceStub

DEFAULT_TARGET = "127.0.0.1:50051"
DEFAULT_CHANNELS = 4
DEFAULT_TIMEOUT_S = 5.0
RECORD_TIMEOUT_S = 30.0
LABELS_TIMEOUT_S = 60.0  # a whole label set: up to hundreds of megabytes

# By the names that a server's health is asked under; "" is the server as a whole.
SERVICES = (
    "",
    *(
        service.full_name
        for module in (recommendation_pb2, concept_pb2, bundle_pb2, policy_pb2, experiment_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    ),
)

MAX_BATCH = 256
MAX_BATCH_BYTES = 3 * 2**20  # a server takes messages of 4 MiB
MAX_RECEIVED_BYTES = 64 * 2**20

# Four attempts wait about 0.1 + 0.2 + 0.4 s, all within the deadline: a worker that restarts is
# bridged, a server that is gone is reported soon. Every call may be sent twice: reads change
# nothing, and events carry ids (see trimtab.recording).
SERVICE_CONFIG: dict[str, Any] = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def channel_options(index: int) -> list[tuple[str, Any]]:
    """The options of one channel of a pool.

    Worker processes that share a port are given connections, not calls. So each channel has a
    connection of its own; channels with equal options would share one.
    """
    return [
        ("grpc.use_local_subchannel_pool", 1),
        ("trimtab.channel", index),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
        # During a call only: a peer that vanished without a word is noticed, and a server that
        # takes pings without data for abuse (gRPC's default: more than two) is given no cause to
        # hang up.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 0),
    ]


def authorization(token: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata of a bearer token. Without TLS it crosses the network in the clear."""
    return (("authorization", f"Bearer {token}"),) if token else ()


class Stubs(NamedTuple):
    """The services over one channel."""

    recommendation: RecommendationServiceStub
    concept: ConceptServiceStub
    bundle: BundleServiceStub
    health: Any


def stubs(channel: grpc.Channel | grpc.aio.Channel) -> Stubs:
    """The services over a channel."""
    return Stubs(
        RecommendationServiceStub(channel),
        ConceptServiceStub(channel),
        BundleServiceStub(channel),
        health_pb2_grpc.HealthStub(channel),
    )


def batches(requests: Iterable[RecommendRequest]) -> Iterator[list[RecommendRequest]]:
    """Requests in lists of as many, and as many bytes, as one BatchRecommend may hold."""
    batch: list[RecommendRequest] = []
    size = 0
    for request in requests:
        bytes_more = request.ByteSize() + 8  # and what wraps it
        if batch and (len(batch) == MAX_BATCH or size + bytes_more > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(request)
        size += bytes_more
    if batch:
        yield batch


def round_robin(pool: Sequence[Stubs]) -> Iterator[Stubs]:
    """The channels in turn, for ever. `next` on it is one step of the interpreter: threads may share it."""
    return itertools.cycle(pool)


@dataclass(slots=True)
class ServerStatus:
    """How a server is."""

    target: str
    latency_ms: float
    """Of one health check over an open connection."""
    services: dict[str, str]
    """Per name in `SERVICES`: "SERVING", "NOT_SERVING", or "SERVICE_UNKNOWN" where the server has none."""
    bundles: list[LoadedBundle] = field(default_factory=list)
    bundles_error: str = ""
    """Why the bundles could not be listed."""

    @property
    def serving(self) -> bool:
        """True if the server as a whole is ready for calls."""
        return self.services.get("") == "SERVING"


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a client calls, and how."""

    target: str = DEFAULT_TARGET
    """Address of the server, for instance "127.0.0.1:50051" or "dns:///recommender:50051"."""
    channels: int = DEFAULT_CHANNELS
    """Connections that calls are spread over."""
    timeout_s: float = DEFAULT_TIMEOUT_S
    """Deadline of a call that states none, in seconds."""
    credentials: grpc.ChannelCredentials | None = None
    """For TLS, for instance `grpc.ssl_channel_credentials()`; without it the connection is in the clear."""
    token: str | None = None
    """Bearer token, sent as metadata with each call."""

    def __post_init__(self) -> None:
        if not self.target:
            raise ValueError("target: an empty text found, expected an address")
        if self.channels < 1:
            raise ValueError(f"channels: {self.channels} found, expected at least 1")
        check_timeout(self.timeout_s)


def check_timeout(timeout_s: float) -> float:
    """Refuses a deadline that no call can meet."""
    if not timeout_s > 0:
        raise ValueError(f"timeout: {timeout_s!r} found, expected seconds above 0")
    return timeout_s

"""Settings of the connections to a server: channel options, retries, credentials and limits."""

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
LABELS_TIMEOUT_S = 60.0
"""Deadline of a transfer of a label set, in seconds: a set may have hundreds of megabytes."""

SERVICES = (
    "",
    *(
        service.full_name
        for module in (recommendation_pb2, concept_pb2, bundle_pb2, policy_pb2, experiment_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    ),
)
"""Names of the services in the health protocol; "" is the server as a whole."""

MAX_BATCH = 256
"""Most requests in one BatchRecommend call: the server's limit."""
MAX_BATCH_BYTES = 3 * 2**20
"""Most bytes in one BatchRecommend call; gRPC servers accept messages of up to 4 MiB."""
MAX_RECEIVED_BYTES = 64 * 2**20
"""Largest reply that the client accepts, in bytes."""

# Four attempts wait about 0.1 + 0.2 + 0.4 s in total, within the call's deadline. This is enough
# for a worker that restarts, and a server that stopped is still reported soon. Every call may be
# sent twice: reads change nothing, and events carry ids (see trimtab.recording).
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
    """Returns the options of the channel with this index.

    The kernel distributes connections, not calls, over worker processes that share a port. So each
    channel needs its own connection; gRPC would share one between channels with equal options.
    """
    return [
        ("grpc.use_local_subchannel_pool", 1),
        ("trimtab.channel", index),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
        # Keepalive pings detect a peer that disappeared without closing the connection. They are
        # sent during calls only, because a gRPC server closes a connection that sends more than
        # two pings without data.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 0),
    ]


def authorization(token: str | None) -> tuple[tuple[str, str], ...]:
    """Returns the metadata of a bearer token. Without TLS the token is sent unencrypted."""
    return (("authorization", f"Bearer {token}"),) if token else ()


class Stubs(NamedTuple):
    """The stubs of all services over one channel."""

    recommendation: RecommendationServiceStub
    concept: ConceptServiceStub
    bundle: BundleServiceStub
    health: Any


def stubs(channel: grpc.Channel | grpc.aio.Channel) -> Stubs:
    """Creates the stubs of all services over a channel."""
    return Stubs(
        recommendation=RecommendationServiceStub(channel),
        concept=ConceptServiceStub(channel),
        bundle=BundleServiceStub(channel),
        health=health_pb2_grpc.HealthStub(channel),
    )


def batches(requests: Iterable[RecommendRequest]) -> Iterator[list[RecommendRequest]]:
    """Groups requests into lists that fit into one BatchRecommend call, by number and by bytes."""
    batch: list[RecommendRequest] = []
    size = 0
    for request in requests:
        request_bytes = request.ByteSize() + 8  # 8: the tag and length around it
        if batch and (len(batch) == MAX_BATCH or size + request_bytes > MAX_BATCH_BYTES):
            yield batch
            batch = []
            size = 0
        batch.append(request)
        size += request_bytes
    if batch:
        yield batch


def round_robin(pool: Sequence[Stubs]) -> Iterator[Stubs]:
    """Returns an endless iterator over the channels in turn.

    Threads may share it: `next` on `itertools.cycle` is one step of the interpreter.
    """
    return itertools.cycle(pool)


@dataclass(slots=True)
class ServerStatus:
    """Health and bundles of a server."""

    target: str
    latency_ms: float
    """Duration of one health check over an open connection, in milliseconds."""
    services: dict[str, str]
    """Health of each service in `SERVICES`: "SERVING", "NOT_SERVING" or "SERVICE_UNKNOWN"."""
    bundles: list[LoadedBundle] = field(default_factory=list)
    bundles_error: str = ""
    """Why the bundles could not be listed."""

    @property
    def serving(self) -> bool:
        """Returns true if the server as a whole is ready for calls."""
        return self.services.get("") == "SERVING"


@dataclass(frozen=True, slots=True)
class Connection:
    """Address and credentials of a server."""

    target: str = DEFAULT_TARGET
    """Address of the server, for instance "127.0.0.1:50051" or "dns:///recommender:50051"."""
    channels: int = DEFAULT_CHANNELS
    """Number of connections; calls use them in turn."""
    timeout_s: float = DEFAULT_TIMEOUT_S
    """Default deadline of a call, in seconds."""
    credentials: grpc.ChannelCredentials | None = None
    """TLS credentials, for instance `grpc.ssl_channel_credentials()`; None for no encryption."""
    token: str | None = None
    """Bearer token, sent as metadata with each call; None for no token."""

    def __post_init__(self) -> None:
        if not self.target:
            raise ValueError("target: expected an address, found an empty text")
        if self.channels < 1:
            raise ValueError(f"channels: expected at least 1, found {self.channels}")
        check_timeout(self.timeout_s)


def check_timeout(timeout_s: float) -> float:
    """Returns the deadline in seconds.

    Raises:
        ValueError: the deadline is not above 0.
    """
    if not timeout_s > 0:
        raise ValueError(f"timeout: expected seconds above 0, found {timeout_s!r}")
    return timeout_s

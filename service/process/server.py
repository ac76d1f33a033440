"""Builds a server: starts its parts in order, serves, drains, and stops them in reverse."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

import faiss
import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry
from trimtab.v1 import bundle_pb2, concept_pb2, experiment_pb2, policy_pb2, recommendation_pb2

from service.admission.permits import Admission
from service.api.bundle import BundleRpc
from service.api.concept import ConceptRpc
from service.api.handlers import Gate, Method, StreamingMethod, handlers
from service.api.recommendation import RecommendationRpc
from service.batching.scheduler import Batcher
from service.bundle.bundle import Bundle
from service.bundle.open import open_bundle
from service.bundle.precision import Precision
from service.bundle.registry import DEFAULT_LABEL, BundleRegistry
from service.engine.compute import warm_up
from service.engine.engine import Engine
from service.errors import StartError, StoreUnavailable
from service.labels.redis_store import LabelStore
from service.labels.sync import LabelSync
from service.process.gc_tuning import rare_collections
from service.process.signals import stop_on_signal
from service.settings import Settings
from service.storage.embedded_valkey import store_url
from service.telemetry.exposition import metrics_endpoint
from service.telemetry.metrics import Metrics
from service.users.local_cache import UserCache
from service.users.redis_store import UserStore

_log = logging.getLogger("trimtab")


SERVICES = {
    name: module.DESCRIPTOR.services_by_name[name]
    for name, module in (
        ("RecommendationService", recommendation_pb2),
        ("ConceptService", concept_pb2),
        ("BundleService", bundle_pb2),
        ("PolicyService", policy_pb2),
        ("ExperimentService", experiment_pb2),
    )
}


SERVER_OPTIONS = (
    ("grpc.max_connection_age_ms", 300_000),  # new replicas get load as old connections end
    ("grpc.max_connection_age_grace_ms", 30_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
)


class Serving(NamedTuple):
    """The port that answers gRPC, and the bundle that is served."""

    port: int
    bundle: Bundle


@dataclass(frozen=True)
class RunningServer:
    """Describes a started server."""

    port: int
    metrics_port: int
    bundle: Bundle
    metrics: Metrics


@dataclass(frozen=True)
class _Parts:
    """The parts that the RPC methods use."""

    engine: Engine
    bundles: BundleRegistry
    users: UserCache
    label_sync: LabelSync


def serve(settings: Settings) -> None:
    """Serves in this process until SIGTERM or Ctrl-C; raises as running_server does."""
    uvloop.run(_serve_until_signal(settings))


@asynccontextmanager
async def running_server(settings: Settings) -> AsyncIterator[RunningServer]:
    """Runs a server with its metrics endpoint: ready on entry, drained and stopped on exit.

    Raises:
        StartError: the bundle must not be served (BundleError), the embedded store cannot start
            (DataDirectoryError), or a port is in use.
    """
    metrics = Metrics(CollectorRegistry())
    with metrics_endpoint(settings.listen, settings.metrics_port, metrics.registry) as metrics_port:
        async with serving(settings, metrics) as server:
            yield RunningServer(server.port, metrics_port, server.bundle, metrics)


@asynccontextmanager
async def serving(
    settings: Settings, metrics: Metrics, *, shares_port: bool = False
) -> AsyncIterator[Serving]:
    """Runs a server without a metrics endpoint.

    Args:
        settings: The server's settings.
        metrics: Counts what the server does.
        shares_port: Whether other processes listen on the same port; otherwise a port in use is an
            error.
    """
    faiss.omp_set_num_threads(1)
    async with AsyncExitStack() as stack:
        threads = _start_threads(settings, stack)
        bundle = await _load_bundle(settings, metrics)
        parts = await _start_parts(settings, metrics, bundle, threads, stack)
        port = await _start_grpc(settings, metrics, parts, stack, shares_port=shares_port)
        stack.enter_context(rare_collections())
        stack.callback(metrics.workers.set, 0)
        metrics.workers.set(1)
        yield Serving(port, bundle)


def _start_threads(settings: Settings, stack: AsyncExitStack) -> ThreadPoolExecutor | None:
    """Starts the compute threads; None if lists are computed on the event-loop thread."""
    if not settings.compute_threads:
        return None
    threads = ThreadPoolExecutor(settings.compute_threads, "compute")
    stack.callback(threads.shutdown)
    return threads


async def _load_bundle(settings: Settings, metrics: Metrics) -> Bundle:
    """Opens, checks and warms the bundle."""
    precision = Precision(settings.embedding_precision)
    bundle = await asyncio.to_thread(open_bundle, settings.bundle, precision)
    await asyncio.to_thread(warm_up, bundle)
    provenance = bundle.manifest.provenance
    metrics.bundle.info(
        {
            "bundle_id": bundle.id,
            "label_set": bundle.manifest.label_set,
            "data_set": provenance.data_set,
            "recommender": provenance.recommender,
            "sae": provenance.sae,
        }
    )
    return bundle


async def _start_parts(
    settings: Settings,
    metrics: Metrics,
    bundle: Bundle,
    threads: ThreadPoolExecutor | None,
    stack: AsyncExitStack,
) -> _Parts:
    """Starts what answers requests: the store, the user cache, the label sets and the engine."""
    bundles = BundleRegistry()
    bundles.add(bundle, DEFAULT_LABEL)
    url = await stack.enter_async_context(store_url(settings.redis_url, settings.data_dir))
    store = UserStore(
        url,
        max_history=settings.max_history,
        history_ttl_s=settings.history_ttl_s,
        embedding_ttl_s=settings.embedding_ttl_s,
        timeout_s=settings.store_timeout_s,
        precision=Precision(settings.embedding_precision),
    )
    stack.push_async_callback(store.close)
    await _register(store, bundle)
    label_store = LabelStore(url)
    stack.push_async_callback(label_store.close)
    label_sync = LabelSync(label_store, bundles)
    await stack.enter_async_context(label_sync.following())
    users = UserCache(store, settings.user_tier_mb * 2**20, metrics)
    await stack.enter_async_context(users.following())
    engine = Engine(users, Batcher(threads, settings.compute_threads, metrics))
    stack.push_async_callback(engine.close)
    return _Parts(engine=engine, bundles=bundles, users=users, label_sync=label_sync)


async def _start_grpc(
    settings: Settings,
    metrics: Metrics,
    parts: _Parts,
    stack: AsyncExitStack,
    *,
    shares_port: bool,
) -> int:
    """Starts the gRPC server with health and reflection; returns its port."""
    server = grpc.aio.server(options=[*SERVER_OPTIONS, ("grpc.so_reuseport", int(shares_port))])
    gate = Gate(Admission(settings.max_in_flight), metrics)
    methods = _methods(settings, metrics, parts)
    server.add_generic_rpc_handlers(
        tuple(handlers(service, methods.get(name, {}), gate) for name, service in SERVICES.items())
    )
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    names = [service.full_name for service in SERVICES.values()]
    reflection.enable_server_reflection(
        [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
    )
    port = _add_port(server, settings.listen)
    await server.start()
    stack.push_async_callback(server.stop, settings.drain_s)
    # Called first at the stop: NOT_SERVING comes before the drain.
    stack.push_async_callback(status.enter_graceful_shutdown)
    for name in ("", *names):
        await status.set(name, health_pb2.HealthCheckResponse.SERVING)
    return port


def _methods(
    settings: Settings, metrics: Metrics, parts: _Parts
) -> dict[str, Mapping[str, Method | StreamingMethod]]:
    """Returns the methods of each service that this release serves, by the service's name."""
    recommendation = RecommendationRpc(
        engine=parts.engine,
        bundles=parts.bundles,
        users=parts.users,
        metrics=metrics,
        max_n=settings.max_n,
    )
    concept = ConceptRpc(parts.engine, parts.bundles, parts.label_sync)
    return {
        "RecommendationService": recommendation.methods,
        "ConceptService": concept.methods,
        "BundleService": BundleRpc(parts.bundles).methods,
    }


def _add_port(server: grpc.aio.Server, listen: str) -> int:
    """Listens on an address and returns its port.

    Raises:
        StartError: the address cannot be used.
    """
    try:
        return server.add_insecure_port(listen)
    except RuntimeError as error:
        raise StartError(str(error)) from error


async def _register(store: UserStore, bundle: Bundle) -> None:
    """Registers the bundle's model in the store; without Redis the server starts all the same."""
    try:
        await store.register_model(bundle.cache_key)
    except StoreUnavailable as error:
        _log.warning("starting without stored users: %s", error)
        return
    with suppress(StoreUnavailable):  # a managed Redis may refuse to show its configuration
        if not await store.persistence():
            _log.warning("Redis keeps nothing on disk: histories are lost when it restarts")


async def _serve_until_signal(settings: Settings) -> None:
    stop = stop_on_signal()
    async with running_server(settings) as server:
        host = settings.listen.rpartition(":")[0]
        _log.info(
            "serving bundle %s on %s:%d, metrics on port %d",
            server.bundle.id[:12],
            host,
            server.port,
            server.metrics_port,
        )
        await stop.wait()
        _log.info("draining for at most %g s; a second signal ends at once", settings.drain_s)

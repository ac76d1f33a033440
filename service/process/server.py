"""The server: starts its parts in order, serves, drains, and stops them in reverse."""

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
from service.labels.sync import Labelling
from service.process.gc_tuning import rare_collections
from service.process.signals import stop_on_signal
from service.settings import Settings
from service.storage.embedded_valkey import store_url
from service.telemetry.exposition import metrics_endpoint
from service.telemetry.metrics import Metrics
from service.users.local_cache import UserTier
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
    """What answers, and on which port."""

    port: int
    bundle: Bundle


@dataclass(frozen=True)
class RunningServer:
    """What a started server says about itself."""

    port: int
    metrics_port: int
    bundle: Bundle
    metrics: Metrics


def serve(settings: Settings) -> None:
    """Serves in this process until SIGTERM or Ctrl-C; see running_server for what it raises."""
    uvloop.run(_serve_until_signal(settings))


@asynccontextmanager
async def running_server(settings: Settings) -> AsyncIterator[RunningServer]:
    """A server that is ready on entry, and drained and stopped on exit.

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
    """The same without the endpoint for metrics.

    Args:
        settings: The server's.
        metrics: Counts what it does.
        shares_port: With other processes that say so, too; else a port in use is an error.
    """
    faiss.omp_set_num_threads(1)
    async with AsyncExitStack() as stack:
        threads = None
        if settings.compute_threads:
            threads = ThreadPoolExecutor(settings.compute_threads, "compute")
            stack.callback(threads.shutdown)

        bundles = BundleRegistry()
        precision = Precision(settings.embedding_precision)
        bundle = await asyncio.to_thread(open_bundle, settings.bundle, precision)
        await asyncio.to_thread(warm_up, bundle)
        bundles.add(bundle, DEFAULT_LABEL)
        _describe(bundle, metrics)

        url = await stack.enter_async_context(store_url(settings.redis_url, settings.data_dir))
        store = UserStore(
            url,
            max_history=settings.max_history,
            history_ttl_s=settings.history_ttl_s,
            embedding_ttl_s=settings.embedding_ttl_s,
            timeout_s=settings.store_timeout_s,
            precision=precision,
        )
        stack.push_async_callback(store.close)
        await _greet(store, bundle)
        shelves = LabelStore(url)
        stack.push_async_callback(shelves.close)
        labelling = Labelling(shelves, bundles)
        await stack.enter_async_context(labelling.following())
        users = UserTier(store, settings.user_tier_mb * 2**20, metrics)
        await stack.enter_async_context(users.following())
        engine = Engine(users, Batcher(threads, settings.compute_threads, metrics))
        stack.push_async_callback(engine.close)

        server = grpc.aio.server(options=[*SERVER_OPTIONS, ("grpc.so_reuseport", int(shares_port))])
        gate = Gate(Admission(settings.max_in_flight), metrics)
        implementations: dict[str, Mapping[str, Method | StreamingMethod]] = {
            "RecommendationService": RecommendationRpc(
                engine, bundles, users, metrics, settings.max_n
            ).methods,
            "ConceptService": ConceptRpc(engine, bundles, labelling).methods,
            "BundleService": BundleRpc(bundles).methods,
        }
        server.add_generic_rpc_handlers(
            tuple(
                handlers(service, implementations.get(name, {}), gate)
                for name, service in SERVICES.items()
            )
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
        stack.push_async_callback(
            status.enter_graceful_shutdown
        )  # NOT_SERVING first, then the drain
        for name in ("", *names):
            await status.set(name, health_pb2.HealthCheckResponse.SERVING)
        stack.enter_context(rare_collections())
        stack.callback(metrics.workers.set, 0)
        metrics.workers.set(1)
        yield Serving(port, bundle)


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


def _add_port(server: grpc.aio.Server, listen: str) -> int:
    """Listens on an address and returns its port.

    Raises:
        StartError: the address cannot be used.
    """
    try:
        return server.add_insecure_port(listen)
    except RuntimeError as error:
        raise StartError(str(error)) from error


def _describe(bundle: Bundle, metrics: Metrics) -> None:
    manifest = bundle.manifest
    metrics.bundle.info(
        {
            "bundle_id": bundle.id,
            "label_set": manifest.label_set,
            "data_set": manifest.provenance.data_set,
            "recommender": manifest.provenance.recommender,
            "sae": manifest.provenance.sae,
        }
    )


async def _greet(store: UserStore, bundle: Bundle) -> None:
    """Notes the model in the store; without one the server starts all the same."""
    try:
        await store.register_model(bundle.cache_key)
    except StoreUnavailable as error:
        _log.warning("starting without stored users: %s", error)
        return
    with suppress(StoreUnavailable):  # a managed Redis may not say how it is set up
        if not await store.persistence():
            _log.warning("Redis keeps nothing on disk: histories are lost when it restarts")

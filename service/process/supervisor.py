"""Serves with several processes behind one port, each a whole server on one store and bundle.

This process answers no calls. It holds the port, runs the store and the metrics endpoint, starts
the workers, and passes on the signal to stop. The kernel gives every new connection to one of the
workers (SO_REUSEPORT).
"""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry

from service.errors import StartError
from service.process.signals import stop_on_signal
from service.process.worker_pool import WorkerPool
from service.settings import Settings
from service.storage.embedded_valkey import store_url
from service.telemetry.exposition import metrics_endpoint

_log = logging.getLogger("trimtab")


def serve(settings: Settings) -> None:
    """Serves with settings.workers processes until SIGTERM or Ctrl-C.

    Raises:
        StartError: a worker cannot start, at the beginning or while no other serves
            (WorkerError), the embedded store cannot start (DataDirectoryError), or a port is in
            use.
    """
    failure: BaseException | None = None
    try:
        asyncio.run(_serve_until_signal(settings))
    except* StartError as group:
        failure = group.exceptions[0]
    if failure:
        raise failure


async def _serve_until_signal(settings: Settings) -> None:
    registry = CollectorRegistry()
    with (
        metrics_endpoint(settings.listen, settings.metrics_port, registry) as metrics_port,
        held_port(settings.listen) as port,
    ):
        _log.info("metrics on port %d", metrics_port)
        async with store_url(settings.redis_url, settings.data_dir) as url:
            address = f"{settings.listen.rpartition(':')[0]}:{port}"
            pool = WorkerPool(settings.model_copy(update={"redis_url": url, "listen": address}))
            registry.register(pool)
            stop = stop_on_signal(pool.kill)
            async with asyncio.TaskGroup() as running:
                for number in range(1, settings.workers + 1):
                    running.create_task(pool.supervise(number, stop))
                await stop.wait()
                _log.info(
                    "draining for at most %g s; a second signal ends at once", settings.drain_s
                )
                pool.terminate()


@contextmanager
def held_port(listen: str) -> Iterator[int]:
    """Holds a port for the workers of this server alone; yields its number.

    Port 0 takes a free one.

    Raises:
        StartError: the port is in use.
    """
    host, _, port = listen.rpartition(":")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM
        )[0]
    except OSError as error:
        raise StartError(f"{listen}: {error}") from error
    with socket.socket(family, kind, protocol) as held:
        # Connections of an earlier server may linger.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind(address)
        except OSError as error:
            raise StartError(f"{listen}: {error}") from error
        # The bind above fails if another server has the port. Only from here on do the workers,
        # which set SO_REUSEPORT too, share it.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield held.getsockname()[1]

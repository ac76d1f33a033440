"""Runs one of several processes behind one port: python -m service.process.worker FD.

`worker_pool` starts it. FD is one end of a pipe. The first message to the worker is its task; the
worker answers that it is ready, or why it cannot serve, and then every further message with its
metrics. When the pipe closes, its parent is gone, and the worker drains and exits.
"""

import logging
import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry

from service.errors import StartError
from service.process.server import serving
from service.process.signals import stop_on_signal
from service.process.worker_pool import Ready, Refused, Task
from service.settings import Settings
from service.telemetry.metrics import Metrics

_log = logging.getLogger("trimtab")


def main() -> None:
    """Serves until SIGTERM, or until the parent process is gone."""
    channel: Connection[Any, Any] = Connection(int(sys.argv[1]))
    task: Task = channel.recv()
    line = f"%(asctime)s %(levelname)s worker {task.number} %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=line)
    try:
        uvloop.run(_serve(task.settings, channel))
    except StartError as error:
        with suppress(OSError):
            channel.send(Refused(str(error)))
        sys.exit(1)


async def _serve(settings: Settings, channel: "Connection[Any, Any]") -> None:
    metrics = Metrics(CollectorRegistry())
    stop = stop_on_signal()
    Thread(target=_send_metrics, args=(channel, metrics), daemon=True).start()
    async with serving(settings, metrics, shares_port=True) as server:
        with suppress(OSError):
            channel.send(Ready(server.bundle.id))
        await stop.wait()
        _log.info("draining for at most %g s", settings.drain_s)


def _send_metrics(channel: "Connection[Any, Any]", metrics: Metrics) -> None:
    """Answers each message with the metrics; when the pipe closes, stops this process."""
    with suppress(EOFError, OSError):
        while True:
            channel.recv()
            channel.send(list(metrics.registry.collect()))
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()

"""Metrics on their way out: over HTTP, and of several processes as one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Metric, start_http_server

from service.errors import StartError

COUNTING = ("counter", "histogram")
"""Kinds of metrics that only grow: what a process counted stays counted when it ends."""


@contextmanager
def metrics_endpoint(listen: str, port: int, registry: CollectorRegistry) -> Iterator[int]:
    """Serves the registry over HTTP on the host of listen; yields the port, of which 0 takes a free one.

    Raises:
        StartError: the port is in use.
    """
    host = listen.rpartition(":")[0].strip("[]")
    try:
        web, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise StartError(f"metrics port {port}: {error}") from error
    try:
        yield web.server_port
    finally:
        web.shutdown()
        web.server_close()
        thread.join()


def merged(families: Iterable[Metric]) -> list[Metric]:
    """The metrics of several processes as those of one.

    Counts, sums, buckets and gauges add up. What describes (an info's 1) stays as it is in each.
    The sum is as old as the oldest.
    """
    made: dict[str, Metric] = {}
    samples: dict[str, dict[tuple[str, frozenset[tuple[str, str]]], Any]] = {}
    for family in families:
        made.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        of_family = samples.setdefault(family.name, {})
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            if (known := of_family.get(key)) is None:
                of_family[key] = sample
            elif sample.name.endswith("_created"):
                of_family[key] = sample._replace(value=min(known.value, sample.value))
            elif family.type != "info":
                of_family[key] = sample._replace(value=known.value + sample.value)
    for name, metric in made.items():
        metric.samples = list(samples[name].values())
    return list(made.values())

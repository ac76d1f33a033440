"""Serves metrics over HTTP, and adds up the metrics of several processes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.samples import Sample

from service.errors import StartError

ADDITIVE_TYPES = ("counter", "histogram")
"""Types of metrics that only grow, so that an ended process's values stay in the sum."""


_SampleKey = tuple[str, frozenset[tuple[str, str]]]
"""A sample's name and labels."""


@contextmanager
def metrics_endpoint(listen: str, port: int, registry: CollectorRegistry) -> Iterator[int]:
    """Serves the registry over HTTP on the host of listen; yields the port.

    Port 0 takes a free one.

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
    """Returns the metrics of several processes as those of one.

    Counts, sums, buckets and gauges are added. An info has the value 1 in each process and keeps
    it. A sum was created when its oldest part was.
    """
    metrics: dict[str, Metric] = {}
    samples: dict[str, dict[_SampleKey, Sample]] = {}
    for family in families:
        metrics.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        family_samples = samples.setdefault(family.name, {})
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            earlier = family_samples.get(key)
            if earlier is not None:
                sample = _combined(family.type, earlier, sample)
            family_samples[key] = sample
    for name, metric in metrics.items():
        metric.samples = list(samples[name].values())
    return list(metrics.values())


def _combined(metric_type: str, earlier: Sample, later: Sample) -> Sample:
    if later.name.endswith("_created"):
        return earlier._replace(value=min(earlier.value, later.value))
    if metric_type == "info":
        return earlier
    return earlier._replace(value=earlier.value + later.value)

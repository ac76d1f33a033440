"""Counts lists in the metrics."""

from collections import Counter
from functools import cache

from service.engine.audience import Source
from service.engine.reply import Reply
from service.telemetry.metrics import Metrics
from service.telemetry.timings import Timings


class ListCounts:
    """Counts each list's stages, source, cache use, degradations and edits.

    A metric's child of one label is looked up once: prometheus_client takes a lock for a look-up.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._seconds = cache(metrics.stage_seconds.labels)
        self._sources = cache(metrics.sources.labels)
        self._cache_results = cache(metrics.user_cache.labels)
        self._edits = cache(metrics.edits.labels)
        self._degradations = cache(metrics.degradations.labels)

    def add(self, reply: Reply, timings: Timings) -> None:
        """Counts one list."""
        for stage, seconds in timings.stages.items():
            self._seconds(stage).observe(seconds)
        self._sources(reply.audience.source.value).inc()
        self._cache_results(_cache_result(reply)).inc()
        for degradation in reply.degradations:
            self._degradations(degradation.value).inc()
        for operation, count in Counter(edit.operation for edit in reply.query.plan.edits).items():
            self._edits(operation.value).inc(count)


def _cache_result(reply: Reply) -> str:
    if reply.audience.cached:
        return "hit"
    if reply.query.history is not None:
        return "given"
    return "miss" if reply.audience.source is Source.PERSONAL else "unknown"

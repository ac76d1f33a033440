"""A histogram whose observations cost a call next to nothing: they are kept, and sorted when somebody asks.

prometheus_client takes a lock and adds one for every observation, twice. With eight of them a call
that was a tenth of what a call takes.
"""

from collections.abc import Iterator, Sequence
from threading import Lock

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString

KEPT = 1_000
"""Observations of a series that are sorted at once, if nobody asked before."""


class Series:
    """What was observed under one set of labels.

    Args:
        bounds: Upper ends of the buckets, ascending, without the infinite one.
    """

    __slots__ = ("_bounds", "_counts", "_lock", "_new", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0
        self._new: list[float] = []
        self._lock = Lock()

    def observe(self, seconds: float) -> None:
        """Counts one; to be called by one thread."""
        self._new.append(seconds)
        if len(self._new) >= KEPT:
            self.totals()

    def totals(self) -> tuple[list[int], float]:
        """How many there were up to each bound and at all, and their sum; may be called by another thread."""
        with self._lock:
            new = self._new[:]
            del self._new[: len(new)]  # what came meanwhile stays
            if new:
                places = self._bounds.searchsorted(new)
                self._counts += np.bincount(places, minlength=len(self._counts))
                self._sum += sum(new)
            return np.cumsum(self._counts).tolist(), self._sum


class Durations:
    """A Prometheus histogram of seconds, with labels.

    Args:
        name: The metric's.
        documentation: What it means.
        labels: Names.
        bounds: See Series.
        registry: Where it is registered.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._family = name, documentation
        self._labels, self._bounds = labels, bounds
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def labels(self, *values: str) -> Series:
        """The series of these labels' values."""
        return self._series.setdefault(values, Series(self._bounds))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """See prometheus_client's Collector."""
        family = HistogramMetricFamily(*self._family, labels=self._labels)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for values, series in list(self._series.items()):
            counts, total = series.totals()
            family.add_metric(values, list(zip(names, counts, strict=True)), total)
        yield family

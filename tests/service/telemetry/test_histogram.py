"""Histograms that are sorted when somebody asks."""

import threading

import numpy as np
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from service.telemetry.histogram import MAX_BUFFERED, Durations
from service.telemetry.metrics import BUCKETS


def lines(registry: CollectorRegistry) -> set[str]:
    page = generate_latest(registry).decode().splitlines()
    return {line for line in page if "_created" not in line}


def test_the_page_is_that_of_prometheus_clients_own_histogram() -> None:
    ours = CollectorRegistry()
    theirs = CollectorRegistry()
    durations = Durations("seconds", "Of something.", ("stage",), BUCKETS, ours)
    histogram = Histogram("seconds", "Of something.", ["stage"], buckets=BUCKETS, registry=theirs)
    draws = (
        np.random.default_rng(0).choice(2**-12 * np.arange(12_000), MAX_BUFFERED + 7).tolist()
    )  # sums are exact
    for stage, seconds in (("search", draws), ("rank", [*BUCKETS, 0.0, 9.0])):
        for one in seconds:
            durations.labels(stage).observe(one)
            histogram.labels(stage).observe(one)
        assert lines(ours) == lines(theirs)


def test_nothing_is_lost_while_somebody_asks() -> None:
    durations = Durations("seconds", "Of something.", ("stage",), BUCKETS, CollectorRegistry())
    series = durations.labels("search")
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            list(durations.collect())

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(20 * MAX_BUFFERED):
        series.observe(0.5)
    done.set()
    thread.join()
    counts, total = series.totals()
    assert (counts[-1], total) == (20 * MAX_BUFFERED, 10.0 * MAX_BUFFERED)

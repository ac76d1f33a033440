"""Prometheus metrics: one object, made for one registry."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from service.telemetry.histogram import Durations

BUCKETS = (
    0.00025, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005,
    0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 2.5,
)  # fmt: skip
"""Seconds; a warm request takes about one millisecond, so that is where most bounds are."""


class Metrics:
    """What operators watch.

    Args:
        registry: Where the metrics are registered; one for each server.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.request_seconds = Durations(
            "trimtab_request_seconds",
            "Time to answer a call, by method and status code.",
            ("method", "code"),
            BUCKETS,
            registry,
        )
        self.stage_seconds = Durations(
            "trimtab_stage_seconds",
            "Time in one stage of a recommendation.",
            ("stage",),
            BUCKETS,
            registry,
        )
        self.in_flight = Gauge("trimtab_in_flight", "Calls being answered.", registry=registry)
        self.user_cache = Counter(
            "trimtab_user_cache",
            "Where user embeddings came from: the cache, the encoder, a given history, nowhere.",
            ["result"],
            registry=registry,
        )
        self.tier_reads = Counter(
            "trimtab_user_tier_reads",
            "Users asked for: kept in this process, read from Redis, or read as changes are not heard.",
            ["result"],
            registry=registry,
        )
        self.tier_bytes = Gauge(
            "trimtab_user_tier_bytes",
            "Memory of the users kept in this process.",
            registry=registry,
        )
        self.sources = Counter(
            "trimtab_lists",
            "Lists returned, by where they come from.",
            ["source"],
            registry=registry,
        )
        self.degradations = Counter(
            "trimtab_degradations",
            "Replies that did without something, by rung.",
            ["kind"],
            registry=registry,
        )
        self.rejected = Counter(
            "trimtab_rejected", "Calls refused before any work.", ["reason"], registry=registry
        )
        self.not_computed = Counter(
            "trimtab_not_computed",
            "Lists dropped before any work on them: their deadline had passed, or the caller was gone.",
            ["reason"],
            registry=registry,
        )
        self.batch_size = Histogram(
            "trimtab_batch_size",
            "Lists computed together.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=registry,
        )
        self.edits = Counter(
            "trimtab_edits", "Edits applied, by operation.", ["operation"], registry=registry
        )
        self.events = Counter(
            "trimtab_recorded_events", "Events recorded.", ["result"], registry=registry
        )
        self.bundle = Info(
            "trimtab_bundle", "The bundle behind the default label.", registry=registry
        )
        self.workers = Gauge("trimtab_workers", "Processes that serve now.", registry=registry)
        self.worker_restarts = Counter(
            "trimtab_worker_restarts",
            "Workers that ended by themselves and were started again.",
            registry=registry,
        )

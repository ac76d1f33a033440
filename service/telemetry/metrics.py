"""Defines the server's Prometheus metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from service.telemetry.histogram import Durations

_BOUNDS_MS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 20, 50, 100, 250, 1_000, 2_500)

BUCKETS = tuple(bound / 1_000 for bound in _BOUNDS_MS)
"""Upper bounds in seconds; most are near a warm request's time, about one millisecond."""


class Metrics:
    """The metrics of one server.

    Args:
        registry: The registry that collects them; each server has its own.
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
            "User embeddings, by where they came from.",
            ["result"],
            registry=registry,
        )
        self.tier_reads = Counter(
            "trimtab_user_tier_reads",
            "Users read from the cache of this process, or from Redis.",
            ["result"],
            registry=registry,
        )
        self.tier_bytes = Gauge(
            "trimtab_user_tier_bytes",
            "Memory of the users cached in this process.",
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
            "Degraded replies, by what they were made without.",
            ["kind"],
            registry=registry,
        )
        self.rejected = Counter(
            "trimtab_rejected", "Calls refused before any work.", ["reason"], registry=registry
        )
        self.not_computed = Counter(
            "trimtab_not_computed",
            "Lists dropped before they were computed, as nobody waits for them.",
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
            "Workers that ended unasked and were restarted.",
            registry=registry,
        )

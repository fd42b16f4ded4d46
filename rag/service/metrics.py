"""What the service tells Prometheus; one registry per service, none global."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rag.models.wire.breaker import BreakerState
from rag.service.batching import BatchStats
from rag.service.engine import Done
from rag.service.state import Phase, Service
from rag.service.vector_cache import VectorCache

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 64, 256, 1024, 2048, 4096, 8192, 16384)


class Metrics:
    """Counters, histograms and gauges; safe to feed from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        to = self.registry
        self._requests = Counter(
            "rag_requests", "Requests to /invocations by status; 499: the client left",
            ["status"], registry=to,
        )  # fmt: skip
        self._records = Counter(
            "rag_records", "Lines of JSON Lines requests by status", ["status"], registry=to
        )
        self._stages = Histogram(
            "rag_stage_seconds", "Time of each stage of a request that was answered",
            ["stage"], buckets=_SECONDS, registry=to,
        )  # fmt: skip
        self._degraded = Counter(
            "rag_degraded", "Replies that had to do without a stage", ["stage"], registry=to
        )
        self._batch_items = Histogram(
            "rag_batch_items", "Queries per batch", ["stage"], buckets=_ITEMS, registry=to
        )
        self._batch_tokens = Histogram(
            "rag_batch_tokens", "Tokens per batch of the encoder, at most",
            buckets=_TOKENS, registry=to,
        )  # fmt: skip
        self._batch_seconds = Histogram(
            "rag_batch_seconds", "Time of each batch", ["stage"], buckets=_SECONDS, registry=to
        )
        self._wait_seconds = Histogram(
            "rag_wait_seconds", "Wait of each query for its batch", ["stage"],
            buckets=_SECONDS, registry=to,
        )  # fmt: skip
        self._breaker_state = Gauge(
            "rag_breaker_state", "Circuit of an endpoint: 0 closed, 1 half open, 2 open",
            ["endpoint"], registry=to,
        )  # fmt: skip
        self._breaker_opened = Counter(
            "rag_breaker_opened", "Times that an endpoint's circuit opened",
            ["endpoint"], registry=to,
        )  # fmt: skip
        self._halved = Counter(
            "rag_batches_halved", "Batches of the encoder that ran out of memory", registry=to
        )
        self._index = Info("rag_index", "The bundle that is served", registry=to)

    def watch(self, service: Service) -> None:
        """Adds the gauges, which are read off `service` whenever somebody asks."""
        gauges = {
            "rag_in_flight_requests": ("Requests being worked on", lambda: service.in_flight),
            "rag_queue_depth": ("Queries waiting for a batch", lambda: _depth(service)),
            "rag_ready": ("1 while traffic may come", lambda: int(service.healthy)),
            "rag_draining": ("1 after SIGTERM", lambda: int(service.phase is Phase.DRAINING)),
        }
        for name, (meaning, read) in gauges.items():
            Gauge(name, meaning, registry=self.registry).set_function(read)

    def watch_cache(self, cache: VectorCache) -> None:
        """Adds the counters of the cache of query vectors."""
        self.registry.register(_CacheCounters(cache))

    def request(self, status: int) -> None:
        self._requests.labels(str(status)).inc()

    def record(self, status: int) -> None:
        self._records.labels(str(status)).inc()

    def encoded(self, stats: BatchStats) -> None:
        self._batch_tokens.observe(stats.cost)
        self._batch("embed", stats)

    def searched(self, stats: BatchStats) -> None:
        self._batch("search", stats)

    def _batch(self, stage: str, stats: BatchStats) -> None:
        self._batch_items.labels(stage).observe(stats.items)
        self._batch_seconds.labels(stage).observe(stats.run_s)
        waits = self._wait_seconds.labels(stage)
        for wait_s in stats.waits_s:
            waits.observe(wait_s)

    def halved(self) -> None:
        self._halved.inc()

    def done(self, done: Done) -> None:
        for stage, milliseconds in done.timings_ms.items():
            self._stages.labels(stage).observe(milliseconds / 1e3)
        for note in done.degraded:
            self._degraded.labels(note.partition(":")[0]).inc()

    def breaker(self, endpoint: str, state: BreakerState) -> None:
        self._breaker_state.labels(endpoint).set(("closed", "half_open", "open").index(state))
        self._breaker_opened.labels(endpoint).inc(int(state == "open"))

    def index(self, version: str) -> None:
        self._index.info({"version": version})

    def render(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)


class _CacheCounters(Collector):
    def __init__(self, cache: VectorCache) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        cache = self._cache
        yield CounterMetricFamily("rag_query_cache_hits", "Query vectors found", cache.hits)
        yield CounterMetricFamily("rag_query_cache_misses", "Query vectors made", cache.misses)
        yield CounterMetricFamily(
            "rag_query_cache_evictions", "Query vectors that had to leave", cache.evictions
        )
        yield GaugeMetricFamily("rag_query_cache_bytes", "Their memory, about", cache.bytes)


def _depth(service: Service) -> int:
    return 0 if service.engine is None else service.engine.depth

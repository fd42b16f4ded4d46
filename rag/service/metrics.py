"""What the service tells Prometheus; one registry per service, none global.

Each series of one bundle has the label `bundle`: its name on a multi-model endpoint, else ''. No
more than MAX_BUNDLES names become labels, and a bundle's series go when it is unloaded.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics import MetricWrapperBase

from rag.models.wire.breaker import BreakerState
from rag.service.batching import BatchStats
from rag.service.collectors import CacheCounters, ServiceGauges
from rag.service.engine import Done
from rag.service.state import THE_BUNDLE, Service
from rag.service.vector_cache import VectorCache

CONTENT_TYPE = CONTENT_TYPE_LATEST
MAX_BUNDLES = 100
OTHER = "other"
"""The label of bundles beyond MAX_BUNDLES."""
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (16, 64, 256, 1024, 2048, 4096, 8192, 16384)


class Metrics:
    """Counters, histograms and gauges; safe to feed from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._bundles = {THE_BUNDLE}
        to = self.registry
        self._requests = Counter(
            "rag_requests", "Questions by status; 499: the client left",
            ["status", "bundle"], registry=to,
        )  # fmt: skip
        self._records = Counter(
            "rag_records", "Lines of JSON Lines requests by status",
            ["status", "bundle"], registry=to,
        )  # fmt: skip
        self._stages = Histogram(
            "rag_stage_seconds", "Time of each stage of a request that was answered",
            ["stage", "bundle"], buckets=_SECONDS, registry=to,
        )  # fmt: skip
        self._first_token = Histogram(
            "rag_first_token_seconds", "From a request's arrival to its answer's first text",
            ["bundle"], buckets=_SECONDS, registry=to,
        )  # fmt: skip
        self._degraded = Counter(
            "rag_degraded", "Replies that had to do without a stage",
            ["stage", "bundle"], registry=to,
        )  # fmt: skip
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
        self._swaps = Counter("rag_swaps", "Times that another version took over", registry=to)
        self._swap_seconds = Histogram(
            "rag_swap_seconds", "From the first attempt at a version until the old one is gone",
            buckets=_SECONDS, registry=to,
        )  # fmt: skip
        self._swap_failures = Counter(
            "rag_swap_failures", "Times that a root could not be read or its version not served",
            ["error"], registry=to,
        )  # fmt: skip
        self._stale = Gauge(
            "rag_index_stale", "1 while the root's current version is not the one that serves",
            registry=to,
        )  # fmt: skip
        self._counters: dict[tuple[int, str], Counter] = {}
        self._known: dict[tuple[str, str], Histogram] = {}
        """Those of `_requests` and of `_stages` that were asked for before, by their labels."""
        self._of_bundles: list[MetricWrapperBase] = [
            self._requests, self._records, self._stages, self._first_token, self._degraded,
        ]  # fmt: skip

    def watch(self, service: Service) -> None:
        """Adds the gauges, which are read off `service` whenever somebody asks."""
        self.registry.register(ServiceGauges(service))

    def watch_cache(self, cache: VectorCache) -> None:
        """Adds the counters of the cache of query vectors."""
        self.registry.register(CacheCounters(cache))

    def begin(self, bundle: str) -> None:
        """`bundle` may be a label from now on, if there is room."""
        if len(self._bundles) < MAX_BUNDLES:
            self._bundles = {*self._bundles, bundle}

    def forget(self, bundle: str) -> None:
        """`bundle` is no label any more, and its series end."""
        if bundle == THE_BUNDLE or bundle not in self._bundles:
            return
        self._bundles = self._bundles - {bundle}
        self._counters, self._known = {}, {}
        for metric in self._of_bundles:
            metric.remove_by_labels({"bundle": bundle})

    def request(self, status: int, bundle: str = THE_BUNDLE) -> None:
        label = self._label(bundle)
        counter = self._counters.get((status, label))
        if counter is None:
            counter = self._counters[status, label] = self._requests.labels(str(status), label)
        counter.inc()

    def record(self, status: int, bundle: str = THE_BUNDLE) -> None:
        self._records.labels(str(status), self._label(bundle)).inc()

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

    def done(self, done: Done, bundle: str = THE_BUNDLE) -> None:
        label = self._label(bundle)
        for stage, milliseconds in done.timings_ms.items():
            histogram = self._known.get((stage, label))
            if histogram is None:
                histogram = self._known[stage, label] = self._stages.labels(stage, label)
            histogram.observe(milliseconds / 1e3)
        if done.first_token_ms is not None:
            self._first_token.labels(label).observe(done.first_token_ms / 1e3)
        for note in done.degraded:
            self._degraded.labels(note.partition(":")[0], label).inc()

    def breaker(self, endpoint: str, state: BreakerState) -> None:
        self._breaker_state.labels(endpoint).set(("closed", "half_open", "open").index(state))
        self._breaker_opened.labels(endpoint).inc(int(state == "open"))

    def swapped(self, took_s: float) -> None:
        self._swaps.inc()
        self._swap_seconds.observe(took_s)

    def swap_failed(self, error: str) -> None:
        self._swap_failures.labels(error).inc()

    def stale(self, is_stale: bool) -> None:
        self._stale.set(int(is_stale))

    def render(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)

    def _label(self, bundle: str) -> str:
        return bundle if bundle in self._bundles else OTHER

"""Metrics that are read off their source whenever somebody asks."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from rag.service.state import Phase, Service
from rag.service.vector_cache import VectorCache


class ServiceGauges(Collector):
    """What a service is doing, and the version of each of its bundles."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        service, engines = self._service, self._service.engines
        yield _gauge("rag_in_flight_requests", "Requests being worked on", service.in_flight)
        yield _gauge("rag_ready", "1 while traffic may come", service.healthy)
        yield _gauge("rag_draining", "1 after SIGTERM", service.phase is Phase.DRAINING)
        yield _gauge("rag_bundles", "Bundles that are loaded", len(engines))
        depth = GaugeMetricFamily("rag_queue_depth", "Queries waiting", labels=["stage"])
        encoders = {id(engine.encoder): engine.encoder for engine in engines.values()}
        depth.add_metric(["embed"], sum(encoder.depth for encoder in encoders.values()))
        depth.add_metric(["search"], sum(engine.search_depth for engine in engines.values()))
        yield depth
        index = InfoMetricFamily("rag_index", "What is served", labels=["bundle"])
        for name, engine in engines.items():
            index.add_metric([name], {"version": engine.version})
        yield index


class CacheCounters(Collector):
    """How the cache of query vectors does."""

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


def _gauge(name: str, meaning: str, value: int) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, int(value))

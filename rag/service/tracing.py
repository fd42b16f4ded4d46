"""Traces through OpenTelemetry, where they are asked for: a span a request, a span a stage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import rag
from rag.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

    from rag.service.engine import Done

SERVICE_NAME = "rag-containers"
STAGES = ("expand", "queue", "embed", "search", "rerank", "generate")
"""In the order in which a request passes them."""
FLUSH_MS = 1000
"""For spans that wait to be sent when the process ends."""
_NO_SPAN = nullcontext()


class Tracing:
    """Sends spans to the OTLP receiver at `url` (HTTP, such as http://host:4318/v1/traces); None:
    there are no traces, and nothing of OpenTelemetry is imported.

    A caller's W3C trace is continued, and sampled as it says; of other requests `ratio` is
    sampled. Raises ConfigurationError where the package is missing.
    """

    def __init__(self, url: str | None = None, *, ratio: float = 1.0) -> None:
        self._provider: TracerProvider | None = None if url is None else _provider(url, ratio)
        self._tracer = None if self._provider is None else self._provider.get_tracer("rag")

    def span(
        self, name: str, *, began: float, trace: tuple[str, str] = ("", "")
    ) -> AbstractContextManager[Span | None]:
        """A span of the current task, which `began` at that `time.monotonic()` moment; `trace` is
        the caller's traceparent and tracestate. None where there are no traces.
        """
        if self._tracer is None:
            return _NO_SPAN
        from opentelemetry.trace import SpanKind

        kind = SpanKind.SERVER if trace[0] else SpanKind.INTERNAL
        return self._tracer.start_as_current_span(
            name, context=_parent(trace), kind=kind, start_time=_epoch_ns(began),
            record_exception=False,
        )  # fmt: skip

    def stages(self, done: Done) -> None:
        """A span for each stage of the current task's request, which has just been done.

        They follow one another, so each ends where the next begins; the times are the engine's.
        """
        if self._tracer is None:
            return
        end = time.time_ns()
        for stage in reversed(STAGES):
            spent_ms = done.timings_ms.get(stage, 0.0)
            if spent_ms > 0:
                start = end - int(spent_ms * 1e6)
                self._tracer.start_span(stage, start_time=start).end(end)
                end = start

    def flush(self) -> None:
        """Sends what waits, for at most FLUSH_MS; blocks."""
        if self._provider is not None:
            self._provider.force_flush(FLUSH_MS)


def trace_id_of(span: Span) -> str:
    """The trace's id, 32 hex digits."""
    return f"{span.get_span_context().trace_id:032x}"


def describe(span: Span, status: int, attributes: Mapping[str, str]) -> None:
    """Puts a request's outcome on its span; a 5xx is an error."""
    from opentelemetry.trace import StatusCode

    span.set_attribute("http.response.status_code", status)
    span.set_attributes({f"rag.{name}": value for name, value in attributes.items()})
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def _provider(url: str, ratio: float) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError:
        raise ConfigurationError(
            "RAG_TRACES_URL is set and OpenTelemetry is not installed;"
            " pip install 'rag-containers[otel]', or unset it"
        ) from None
    resource = Resource.create({"service.name": SERVICE_NAME, "service.version": rag.__version__})
    sampler = ParentBased(TraceIdRatioBased(ratio))
    provider = TracerProvider(resource=resource, sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    return provider


def _parent(trace: tuple[str, str]) -> Context | None:
    """The caller's span; None, which is the current task's, where it names none."""
    if not trace[0]:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {"traceparent": trace[0], "tracestate": trace[1]}
    return TraceContextTextMapPropagator().extract(carrier)


def _epoch_ns(moment: float) -> int:
    """A `time.monotonic()` moment as nanoseconds since the epoch."""
    return time.time_ns() - int((time.monotonic() - moment) * 1e9)

"""Every route of the service, as one ASGI application."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

import rag
from rag.service import metrics as prometheus
from rag.service import negotiation, replies
from rag.service.errors import Problem
from rag.service.handling import Handler, Logged
from rag.service.invocations import Invocations
from rag.service.metrics import Metrics
from rag.service.openapi import document
from rag.service.schemas import Limits
from rag.service.state import Service
from rag.service.tracing import Tracing

DESCRIPTION = "Retrieval-augmented generation over one sealed bundle."
BATCH_PAYLOAD_MB = 1
"""What one batch-transform request should hold: some ten thousand short records at most."""
BATCH_CONCURRENCY = 8


def create_app(
    service: Service,
    metrics: Metrics,
    *,
    tracing: Tracing | None = None,
    logged: Logged = "failures",
) -> FastAPI:
    """The application of one service; it answers /ping from the first moment on."""
    tracing = tracing or Tracing()
    around = partial(Handler, service=service, metrics=metrics, tracing=tracing, logged=logged)
    app = FastAPI(
        title="rag-containers",
        version=rag.__version__,
        description=DESCRIPTION,
        redoc_url=None,
        exception_handlers={HTTPException: _not_found},
    )
    app.add_route(
        "/invocations",
        around(Invocations(service, metrics, tracing).answer),  # type: ignore[arg-type]
        methods=["POST"],
        include_in_schema=False,
    )

    @app.post("/ping", include_in_schema=False)
    @app.get("/ping", summary="200 when traffic may come, else 503; POST is the same")
    async def ping() -> Response:
        return Response(status_code=200 if service.healthy else 503)

    @app.get("/execution-parameters", summary="What batch transform should send")
    async def execution_parameters() -> dict[str, Any]:
        return batch_parameters(service.limits)

    @app.get("/metrics", summary="Prometheus metrics")
    async def show_metrics() -> Response:
        return Response(metrics.render(), headers={"content-type": prometheus.CONTENT_TYPE})

    @app.get("/", summary="What this is")
    async def describe() -> Response:
        return _json(
            {
                "service": "rag-containers",
                "version": rag.__version__,
                "phase": service.phase,
                "index_version": None if service.engine is None else service.engine.version,
                "post": "/invocations",
                "docs": "/docs",
            }
        )

    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return app


def batch_parameters(limits: Limits) -> dict[str, Any]:
    """The reply to /execution-parameters; concurrency times payload stays within 100 MB."""
    return {
        "MaxConcurrentTransforms": BATCH_CONCURRENCY,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": max(1, min(BATCH_PAYLOAD_MB, limits.max_payload_bytes >> 20)),
    }


async def _not_found(request: Request, error: Exception) -> Response:
    """404 and 405 in the one shape that errors have."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    kind = {404: "not_found", 405: "method_not_allowed"}.get(status, "internal")
    message = f"{request.method} {request.url.path[:100]} is not served; /docs lists what is"
    headers = negotiation.read_headers(request.scope["headers"])
    body = Problem(status, kind, message).body(negotiation.request_id_of(headers))
    allowed = error.headers if isinstance(error, HTTPException) else None
    return _json(body, status, allowed)


def _json(
    value: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    body = replies.dumps(value)
    return Response(body, status_code=status, headers=headers, media_type=negotiation.JSON)

"""Every route of the service, as one ASGI application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

import rag
from rag.errors import RequestError
from rag.service import metrics as prometheus
from rag.service import negotiation, replies
from rag.service.chat.completions import ChatCompletions
from rag.service.chat.replies import error_json, models_json
from rag.service.docs_page import add_docs_page
from rag.service.errors import Problem, problem_of
from rag.service.handling import Handler, Logged
from rag.service.invocations import Invocations
from rag.service.metrics import Metrics
from rag.service.model_routes import add_model_routes
from rag.service.models import Models
from rag.service.openapi import INVOKE, document
from rag.service.refusing import Refusals, Refusing
from rag.service.schemas import Limits
from rag.service.state import Service
from rag.service.streaming import Exchange
from rag.service.tracing import Tracing

DESCRIPTION = "Retrieval-augmented generation over one sealed bundle."
BATCH_PAYLOAD_MB = 1
"""What one batch-transform request should hold: some ten thousand short records at most."""
BATCH_CONCURRENCY = 8


class _App(FastAPI):
    """FastAPI, but for the hot routes: these are plain ASGI applications, and are called before
    any middleware and without a search among the routes.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._hot: dict[str, Any] = {}

    def add_hot_route(self, path: str, application: Any) -> None:
        """Serves POST `path`; other methods are refused as those of any route are."""
        self._hot[path] = application
        self.add_route(path, application, methods=["POST"], include_in_schema=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            hot = self._hot.get(scope["path"])
            if hot is not None:
                await hot(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


def create_app(
    service: Service,
    metrics: Metrics,
    *,
    tracing: Tracing | None = None,
    logged: Logged = "failures",
    models: Models | None = None,
    keyless_models: bool = False,
    refusals: Refusals | None = None,
) -> FastAPI:
    """The application of one service; it answers /ping from the first moment on.

    `models` adds the routes of a multi-model endpoint, see `add_model_routes` for the last.
    """
    tracing = tracing or Tracing()
    refusals = refusals or Refusals(service, metrics)

    def around(answer: Callable[[Exchange], Awaitable[None]], route: str) -> Refusing:
        handler = Handler(answer, route, service, metrics, tracing=tracing, logged=logged)
        return Refusing(handler, refusals)

    app = _App(
        title="rag-containers",
        version=rag.__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        exception_handlers={HTTPException: _not_found, RequestError: _refused},
    )
    answer = Invocations(service, metrics, tracing).answer
    app.add_hot_route("/invocations", around(answer, "/invocations"))
    if models is not None:
        app.add_route(INVOKE, around(answer, INVOKE), methods=["POST"], include_in_schema=False)  # type: ignore[arg-type]
        add_model_routes(app, service, models, keyless=keyless_models)
    chat = "/v1/chat/completions"
    app.add_hot_route(chat, around(ChatCompletions(service).answer, chat))

    @app.post("/ping", include_in_schema=False)
    @app.get(
        "/ping",
        summary="200 when traffic may come, else 503; POST is the same",
        response_class=Response,
        responses={503: {"description": "Loading, draining, or not well"}},
    )
    async def ping() -> Response:
        return Response(status_code=200 if service.healthy else 503)

    @app.get("/execution-parameters", summary="What batch transform should send")
    async def execution_parameters() -> dict[str, Any]:
        return batch_parameters(service.limits)

    @app.get("/v1/models", summary="The models that answer chat completions")
    async def chat_models(request: Request) -> dict[str, Any]:
        return models_json(chat_model_names(service, negotiation.credential_of(_headers(request))))

    @app.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
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
                "bundles": len(service.engines),
                "post": "/invocations",
                "docs": "/docs",
            }
        )

    add_docs_page(app)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return app


def batch_parameters(limits: Limits) -> dict[str, Any]:
    """The reply to /execution-parameters; concurrency times payload stays within 100 MB."""
    return {
        "MaxConcurrentTransforms": BATCH_CONCURRENCY,
        "BatchStrategy": "MULTI_RECORD",
        "MaxPayloadInMB": max(1, min(BATCH_PAYLOAD_MB, limits.max_payload_bytes >> 20)),
    }


def chat_model_names(service: Service, credential: str) -> list[str]:
    """What `model` may be in a chat completion: the bundles of a multi-model endpoint, else the one
    generator; of them, what the key may ask. Raises Unauthorized.
    """
    claims = service.access.claims(credential)
    bundles = [name for name in sorted(service.engines) if claims.may_ask(name)]
    if service.multi_model:
        return bundles
    return [service.engines[name].generator_name for name in bundles]


async def _refused(request: Request, error: Exception) -> Response:
    """A RequestError of a route that is not a question, in the shape that errors have there."""
    request_id = negotiation.request_id_of(_headers(request))
    problem = problem_of(error, request_id)
    headers = {name.decode(): value.decode() for name, value in problem.headers}
    openai = request.url.path.startswith("/v1/")
    body = error_json(problem, request_id) if openai else problem.body(request_id)
    return _json(body, problem.status, headers)


async def _not_found(request: Request, error: Exception) -> Response:
    """404 and 405 in the one shape that errors have."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    kind = {404: "not_found", 405: "method_not_allowed"}.get(status, "internal")
    message = f"{request.method} {request.url.path[:100]} is not served; /docs lists what is"
    body = Problem(status, kind, message).body(negotiation.request_id_of(_headers(request)))
    allowed = error.headers if isinstance(error, HTTPException) else None
    return _json(body, status, allowed)


def _headers(request: Request) -> negotiation.Headers:
    return negotiation.read_headers(request.scope["headers"])


def _json(
    value: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    body = replies.dumps(value)
    return Response(body, status_code=status, headers=headers, media_type=negotiation.JSON)

"""The routes of multi-model endpoints: loading, listing, unloading and asking bundles by name."""

from __future__ import annotations

import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rag.errors import InvalidRequest
from rag.service import negotiation, replies
from rag.service.body import read_body
from rag.service.models import Model, Models
from rag.service.state import Service

MAX_BODY_BYTES = 64 * 1024
BODY_DEADLINE_S = 30.0


class LoadRequest(BaseModel):
    """What POST /models takes."""

    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)

    model_name: str = Field(min_length=1, max_length=1024, description="Any name")
    url: str = Field(min_length=1, max_length=4096, description="Folder of the bundle")


class ModelReply(BaseModel):
    modelName: str  # noqa: N815 - the platform's name
    modelUrl: str  # noqa: N815


class ModelsReply(BaseModel):
    models: list[ModelReply]
    nextPageToken: str | None = None  # noqa: N815


def add_model_routes(app: FastAPI, service: Service, models: Models, *, keyless: bool) -> None:
    """Adds `/models`. Where there are API keys, managing bundles needs one that may, unless
    `keyless`: the platform has none.
    """

    def check(request: Request) -> None:
        if not keyless:
            headers = negotiation.read_headers(request.scope["headers"])
            service.access.manager(negotiation.credential_of(headers))

    @app.post("/models", summary="Load a bundle", response_model=ModelReply)
    async def load(request: Request) -> Response:
        check(request)
        asked = await _body(request)
        return _reply(_json_of(await models.load(asked.model_name, asked.url)))

    @app.get("/models", summary="The loaded bundles, page by page", response_model=ModelsReply)
    async def show_all(request: Request, next_page_token: str | None = None) -> Response:
        check(request)
        page = models.page(next_page_token or request.query_params.get("nextPageToken"))
        value: dict[str, Any] = {"models": [_json_of(model) for model in page.models]}
        if page.next_token is not None:
            value["nextPageToken"] = page.next_token
        return _reply(value)

    @app.get("/models/{name:path}", summary="One loaded bundle", response_model=ModelReply)
    async def show(request: Request, name: str) -> Response:
        check(request)
        return _reply(_json_of(models.get(name)))

    @app.delete(
        "/models/{name:path}",
        summary="Unload a bundle; frees its memory first",
        response_class=Response,
    )
    async def unload(request: Request, name: str) -> Response:
        check(request)
        await models.unload(name)
        return Response(status_code=200)


def _json_of(model: Model) -> dict[str, Any]:
    return {"modelName": model.name, "modelUrl": model.url}


def _reply(value: dict[str, Any]) -> Response:
    return Response(replies.dumps(value), media_type=negotiation.JSON)


async def _body(request: Request) -> LoadRequest:
    headers = negotiation.read_headers(request.scope["headers"])
    body = await read_body(
        request.receive,
        length=headers.content_length,
        most_bytes=MAX_BODY_BYTES,
        deadline=time.monotonic() + BODY_DEADLINE_S,
    )
    try:
        return LoadRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise InvalidRequest(f"{place}: {first['msg'].lower()}; send model_name and url") from None

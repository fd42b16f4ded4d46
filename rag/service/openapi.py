"""The OpenAPI document: /invocations reads its body raw, so its schemas are put in here."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from rag.service import negotiation, replies
from rag.service.chat.requests import ChatRequest
from rag.service.schemas import InvocationRequest

INVOKE = "/models/{name:path}/invoke"
"""Where a bundle of a multi-model endpoint is asked."""
_REF = "#/components/schemas/{model}"
_FRAMES = (replies.PassagesFrame, replies.DeltaFrame, replies.DoneFrame, replies.ErrorFrame)
_ERRORS = {
    400: "The request is not valid",
    401: "No API key, or one that is not known",
    403: "The API key may not ask this bundle",
    404: "No such bundle is loaded",
    406: "No media type that Accept names can be sent",
    413: "The body is too large",
    415: "The body's media type is not known",
    429: "Overloaded; Retry-After says when to come back",
    500: "A model or an index failed on this request",
    502: "The generator failed, and the request asked to hear of it",
    503: "Loading or shutting down",
    504: "The deadline passed",
}


def document(app: FastAPI) -> dict[str, Any]:
    """OpenAPI of all routes of `app`, /invocations included."""
    made = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    models: list[type[BaseModel]] = [
        InvocationRequest, ChatRequest, replies.InvocationReply, replies.ErrorReply, *_FRAMES,
    ]  # fmt: skip
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template=_REF
    )
    made.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
    asked = {"post": _invocations()}
    made["paths"]["/invocations"] = asked
    if any(getattr(route, "path", "") == INVOKE for route in app.routes):
        name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        named = asked["post"] | {"operationId": "invoke", "parameters": [name]}
        made["paths"]["/models/{name}/invoke"] = {"post": named}
    made["paths"]["/v1/chat/completions"] = {"post": _chat()}
    return made


def _invocations() -> dict[str, Any]:
    one, many = {"schema": _ref(InvocationRequest)}, {"schema": {"type": "string"}}
    frames = {"schema": {"oneOf": [_ref(frame) for frame in _FRAMES]}}
    error = {negotiation.JSON: {"schema": _ref(replies.ErrorReply)}}
    answered = {
        negotiation.JSON: {"schema": _ref(replies.InvocationReply)},
        negotiation.JSON_LINES[0]: many,
        negotiation.NDJSON: frames,
        negotiation.EVENTS: frames,
    }
    return {
        "summary": "Answer a question, or retrieve passages",
        "description": "One JSON object, or JSON Lines answered line for line in order. With"
        " `stream` the reply is frames: passages, deltas, then done or an error.",
        "operationId": "invocations",
        "requestBody": {
            "required": True,
            "content": {negotiation.JSON: one, negotiation.JSON_LINES[0]: many},
        },
        "responses": {"200": {"description": "Answered", "content": answered}}
        | {str(k): {"description": v, "content": error} for k, v in _ERRORS.items()},
    }


def _chat() -> dict[str, Any]:
    completion = {"schema": {"type": "object", "description": "chat.completion, and `rag`"}}
    chunks = {"schema": {"type": "string", "description": "chat.completion.chunk, [DONE] last"}}
    error = {negotiation.JSON: {"schema": {"type": "object", "required": ["error"]}}}
    return {
        "summary": "Answer as OpenAI's chat completions do",
        "description": "The last message is the question; `rag` holds what the protocol lacks.",
        "operationId": "chat_completions",
        "requestBody": {
            "required": True,
            "content": {negotiation.JSON: {"schema": _ref(ChatRequest)}},
        },
        "responses": {
            "200": {
                "description": "Answered",
                "content": {negotiation.JSON: completion, negotiation.EVENTS: chunks},
            }
        }
        | {str(k): {"description": v, "content": error} for k, v in _ERRORS.items()},
    }


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}

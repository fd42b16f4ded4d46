"""One request from a command line: to a running service, or to a bundle opened for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx2
import orjson

from rag.errors import ConfigurationError, RequestError
from rag.service.app import limits_of, options_of
from rag.service.engine import Call
from rag.service.engines import EngineMaker
from rag.service.invocations import whole_reply
from rag.service.metrics import Metrics
from rag.service.negotiation import new_request_id
from rag.service.schemas import parse_request
from rag.settings import Settings

TIMEOUT_S = 70.0
"""Longer than any deadline that a service accepts."""


def ask_service(url: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The reply of the service at `url`, as the wire has it.

    Raises ConfigurationError if there is no such service, RequestError with the service's own
    message if it refuses.
    """
    address = f"{url.rstrip('/')}/invocations"
    try:
        response = httpx2.post(address, json=dict(request), timeout=TIMEOUT_S)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ConfigurationError(
            f"{address} cannot be reached ({error}); start one with rag serve, or give --bundle"
        ) from None
    try:
        reply = orjson.loads(response.content)
        message = reply.get("error", {}).get("message", "")
    except (orjson.JSONDecodeError, AttributeError):
        raise ConfigurationError(
            f"{address} answered {response.status_code} with something that is not a reply;"
            " is it a rag service?"
        ) from None
    if response.status_code != 200:
        raise RequestError(f"{address} answered {response.status_code}: {message}")
    return dict(reply)


def ask_bundle(settings: Settings, request: Mapping[str, Any]) -> dict[str, Any]:
    """The reply that a service with these settings would give; opens the bundle for it.

    Raises what opening a bundle and answering raise.
    """
    parsed = parse_request(orjson.dumps(dict(request)), limits_of(settings))
    maker = EngineMaker(options_of(settings), Metrics())
    engine = maker.load(settings.bundle, settings.bundle_version)
    now = time.monotonic()
    deadline = now + (parsed.deadline_ms or settings.default_deadline_ms) / 1e3

    async def reply() -> dict[str, Any]:
        try:
            return await whole_reply(engine, Call(parsed, new_request_id(), now, deadline))
        finally:
            await engine.close()
            await maker.close()

    return asyncio.run(reply())

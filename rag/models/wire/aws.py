"""Requests to AWS runtimes over the service's own HTTP client.

botocore gives the endpoint's address, the credentials, the signature and the binary framing, but
not the connection: its HTTP is blocking, needs a thread for each answer under way, and cannot be
interrupted in a read. Sent from here, a request is cancelled and cut off like any other, and is
never retried behind the caller's back.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple

import httpx2

from rag.errors import (
    ConfigurationError,
    GeneratorFailure,
    GeneratorProtocolError,
    GeneratorUnavailable,
)
from rag.models.generator import Delta
from rag.models.wire.endpoint import Endpoint, Read, failure_of_status, read_body, within

try:
    import botocore.session
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import ReadOnlyCredentials
    from botocore.eventstream import EventStreamBuffer, ParserError
    from botocore.exceptions import BotoCoreError
    from botocore.loaders import Loader
except ImportError as error:
    raise ConfigurationError(
        "generators on AWS need botocore: pip install 'rag-containers[aws]'"
    ) from error

EVENT_STREAM = "application/vnd.amazon.eventstream"
_BEARER = {"bedrock-runtime": "AWS_BEARER_TOKEN_BEDROCK"}  # the SDKs' variable for API keys
# What an error means, where its HTTP status (or, within a stream, the lack of one) does not say.
_STATUS: Mapping[str, int] = {
    "throttlingexception": 429,
    "toomanyrequestsexception": 429,
    "modelnotreadyexception": 429,
    "internalserverexception": 500,
    "internalfailure": 500,
    "internalstreamfailure": 500,
    "modelerrorexception": 502,
    "modelstreamerror": 502,
    "modelstreamerrorexception": 502,
    "serviceunavailable": 503,
    "serviceunavailableexception": 503,
    "internaldependencyexception": 503,
    "modeltimeoutexception": 504,
}


class AwsRuntime:
    """Where a service of AWS is, and what proves who asks it.

    `service` is botocore's name ('sagemaker-runtime'). `region` and `endpoint_url` win over what
    the environment and the profile say, which is read as the AWS SDKs do. Credentials are looked
    up at the first request and refreshed when they expire, off the event loop. Raises
    ConfigurationError where no region is known.
    """

    def __init__(
        self, service: str, *, region: str | None = None, endpoint_url: str | None = None
    ) -> None:
        self._session = botocore.session.get_session()
        self._session.register_component("data_loader", _loader())
        try:
            client = self._session.create_client(
                service, region_name=region, endpoint_url=endpoint_url,
                # Never used to sign: they keep this from looking for the real ones here.
                aws_access_key_id="-", aws_secret_access_key="-",  # noqa: S106
            )  # fmt: skip
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(
                f"{service} cannot be reached: {error}; set RAG_GENERATOR_REGION"
            ) from error
        self.url = httpx2.URL(client.meta.endpoint_url)
        self._region = client.meta.region_name
        self._signing_name = client.meta.service_model.signing_name
        self._bearer = os.environ.get(_BEARER.get(service, ""))
        self._lock = threading.Lock()

    async def answer(
        self,
        endpoint: Endpoint,
        url: httpx2.URL,
        content: bytes,
        headers: Mapping[str, str],
        read: Read,
        *,
        deadline: float,
    ) -> AsyncGenerator[Delta, None]:
        """`Endpoint.answer` with a request that is signed."""
        signed = await within(deadline, self.signed(url, content, headers))
        made = endpoint.answer(url, content, signed, read, deadline=deadline)
        async with aclosing(made):
            async for delta in made:
                yield delta

    async def signed(
        self, url: httpx2.URL, body: bytes, headers: Mapping[str, str]
    ) -> dict[str, str]:
        """`headers` with those that sign the request; GeneratorFailure without credentials."""
        if self._bearer:
            return {**headers, "Authorization": f"Bearer {self._bearer}"}
        try:
            credentials = await asyncio.to_thread(self._credentials)
        except BotoCoreError as error:
            raise GeneratorUnavailable(
                f"AWS credentials cannot be had ({type(error).__name__}): check the role"
            ) from error
        if credentials is None:
            raise GeneratorFailure(
                "there are no AWS credentials: give the container a role, or set"
                " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        request = AWSRequest("POST", str(url), headers=dict(headers), data=body)
        SigV4Auth(credentials, self._signing_name, self._region).add_auth(request)
        return dict(request.headers.items())

    def _credentials(self) -> ReadOnlyCredentials | None:
        with self._lock:  # botocore's session is not safe between threads
            found = self._session.get_credentials()
        return None if found is None else found.get_frozen_credentials()


@functools.cache
def _loader() -> Loader:
    """One for all: it keeps the descriptions of services, which take long to read."""
    return Loader()


class AwsEvent(NamedTuple):
    """One message of an event stream: its type ('PayloadPart'), and its bytes."""

    kind: str
    payload: bytes


async def read_events(response: httpx2.Response, deadline: float) -> AsyncGenerator[AwsEvent, None]:
    """The events of a stream; raises the failure that an exception message names, and
    GeneratorProtocolError for bytes that are not framed.
    """
    buffer, parts = EventStreamBuffer(), response.aiter_bytes()
    while (part := await within(deadline, anext_or_none(parts))) is not None:
        buffer.add_data(part)
        try:
            messages = list(buffer)
        except ParserError as error:
            raise GeneratorProtocolError(
                f"generator endpoint sent a malformed event stream: {error}"
            ) from error
        for message in messages:
            kind = message.headers.get(":message-type")
            if kind == "event":
                yield AwsEvent(str(message.headers.get(":event-type")), message.payload)
            else:
                raise _failure_of_message(message.headers, message.payload)


async def failure_of_response(response: httpx2.Response, deadline: float) -> GeneratorFailure:
    """What a response other than 200 means."""
    body = await within(deadline, read_body(response))
    name = response.headers.get("x-amzn-errortype", "")
    wait = response.headers.get("retry-after")
    return _failure(response.status_code, name, _object(body), body, wait)


async def anext_or_none(parts: Any) -> bytes | None:
    """The next part, None after the last."""
    part: bytes | None = await anext(parts, None)
    return part


def _failure_of_message(headers: Mapping[str, Any], payload: bytes) -> GeneratorFailure:
    text = payload.decode("utf-8", "replace")
    name = headers.get(":exception-type") or headers.get(":error-code") or "error"
    return _failure(400, str(name), _object(text), str(headers.get(":error-message") or text))


def _failure(
    status: int, name: str, said: Mapping[str, Any], body: str, retry_after: str | None = None
) -> GeneratorFailure:
    name = (name or str(said.get("__type") or said.get("code") or "")).split(":")[0].split("#")[-1]
    message = said.get("message") or said.get("Message") or body
    if name == "ModelError":  # the container behind a SageMaker endpoint answered so
        original = said.get("OriginalStatusCode")
        status = original if isinstance(original, int) else 502
        message = said.get("OriginalMessage") or message
    status = _STATUS.get(name.lower(), status)
    return failure_of_status(status, f"{name}: {message}" if name else str(message), retry_after)


def _object(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

"""A generator behind a SageMaker endpoint, through InvokeEndpoint and its response stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, get_args
from urllib.parse import quote

import httpx2

from rag.errors import ConfigurationError, GeneratorProtocolError
from rag.models.generator import Delta, Prompt
from rag.models.sagemaker_dialects import Dialect, Lines, read_frame, read_whole, request_body
from rag.models.wire.aws import EVENT_STREAM, AwsRuntime, failure_of_response, read_events
from rag.models.wire.chunks import Chunk
from rag.models.wire.endpoint import Endpoint, json_bytes, media_type, read_body, within


class SageMakerGenerator:
    """Asks one endpoint, named `endpoint_name`, whose container speaks `dialect`.

    `streams` chooses InvokeEndpointWithResponseStream (True) or InvokeEndpoint. `model` is put
    into the body of 'messages' for containers that want one; `inference_component` names one of
    several models on the endpoint. `extra` is merged into each request's body. For `region` and
    `endpoint_url` see `AwsRuntime`, for the rest `Endpoint`. The caller needs
    sagemaker:InvokeEndpoint. Raises ConfigurationError for an unknown dialect.
    """

    def __init__(
        self,
        endpoint_name: str,
        *,
        dialect: Dialect = "messages",
        model: str | None = None,
        inference_component: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        streams: bool = True,
        extra: Mapping[str, Any] | None = None,
        timeout_connect_s: float = 5.0,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        if dialect not in get_args(Dialect):
            raise ConfigurationError(
                f"the dialect {dialect!r} is not one of {', '.join(get_args(Dialect))}"
            )
        self._name = endpoint_name if model is None else f"{endpoint_name}/{model}"
        self._dialect: Dialect = dialect
        self._model = model
        self._streams = streams
        self._extra = dict(extra or {})
        self._runtime = AwsRuntime("sagemaker-runtime", region=region, endpoint_url=endpoint_url)
        operation = "invocations-response-stream" if streams else "invocations"
        path = f"/endpoints/{quote(endpoint_name, safe='')}/{operation}"
        self._url = self._runtime.url.join(path)
        self._headers = {"Content-Type": "application/json"}
        self._headers["X-Amzn-SageMaker-Accept" if streams else "Accept"] = "*/*"
        if inference_component:
            self._headers["X-Amzn-SageMaker-Inference-Component"] = inference_component
        self._endpoint = Endpoint(timeout_connect_s=timeout_connect_s, client=client)

    @property
    def name(self) -> str:
        return self._name

    async def aclose(self) -> None:
        """Closes the connections, unless the client came from outside."""
        await self._endpoint.aclose()

    def stream(self, prompt: Prompt, *, deadline: float) -> AsyncIterator[Delta]:
        """Yields the model's text as it arrives, and how it ended. Raises as every generator."""
        asked = request_body(self._dialect, prompt, model=self._model, streams=self._streams)
        body = json_bytes(asked | self._extra)
        return self._runtime.answer(
            self._endpoint, self._url, body, self._headers, self._read, deadline=deadline
        )

    async def _read(
        self, response: httpx2.Response, deadline: float
    ) -> AsyncGenerator[Chunk, None]:
        if response.status_code != 200:
            raise self._endpoint.masked(await failure_of_response(response, deadline))
        if not self._streams:
            body = await within(deadline, read_body(response))
            yield read_whole(self._dialect, body)
            return
        if media_type(response) != EVENT_STREAM:
            raise GeneratorProtocolError(
                f"generator endpoint answered with content type {media_type(response)[:80]!r}: "
                f"expected {EVENT_STREAM}; check that the address is SageMaker's runtime"
            )
        ended = False
        async with aclosing(self._lines(response, deadline)) as lines:
            async for line in lines:
                chunk = read_frame(self._dialect, line)
                if chunk is not None:
                    ended = ended or chunk.reason is not None
                    yield chunk
                elif "[DONE]" in line:
                    ended = True
        if not ended:
            raise GeneratorProtocolError(
                "generator endpoint ended its stream without a finish reason: the answer may be"
                " cut short; ask again"
            )

    async def _lines(self, response: httpx2.Response, deadline: float) -> AsyncGenerator[str, None]:
        """The container's lines: how the platform cuts them into parts means nothing."""
        lines = Lines()
        async with aclosing(read_events(response, deadline)) as events:
            async for event in events:
                if event.kind == "PayloadPart":
                    for line in lines.feed(event.payload):
                        yield line
        yield lines.flush()

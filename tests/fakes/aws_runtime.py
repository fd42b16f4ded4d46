"""A fake AWS runtime at the wire: SageMaker's and Bedrock's HTTP and binary framing, signatures
checked. What it says is a letter a token, and depends on the whole prompt.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
import re
import socket
import threading
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, unquote

import uvicorn
from event_stream import KIND, event

REGION = "us-east-1"
KEY, SECRET = "AKIDEXAMPLE", "aws-very-secret"  # what the tests sign with


def signature(method: str, path: str, headers: dict[str, str], body: bytes, auth: str) -> str:
    """The signature that `auth` should carry: AWS Signature Version 4, written out by hand."""
    scope = re.search(r"Credential=[^/]+/([^,]+)", auth)
    names = re.search(r"SignedHeaders=([^,]+)", auth)
    assert scope
    assert names
    signed = "".join(f"{name}:{headers[name].strip()}\n" for name in names[1].split(";"))
    digest = hashlib.sha256(body).hexdigest()
    # The path as it was sent is encoded once more.
    canonical = "\n".join([method, quote(path, safe="/~"), "", signed, names[1], digest])
    day, region, service, last = scope[1].split("/")
    to_sign = "\n".join(
        ["AWS4-HMAC-SHA256", headers["x-amz-date"], scope[1],
         hashlib.sha256(canonical.encode()).hexdigest()]
    )  # fmt: skip
    key = f"AWS4{SECRET}".encode()
    for part in (day, region, service, last):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


class FakeAwsRuntime:
    """`url` is where both services are; `asked` are the paths of requests so far."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        config = uvicorn.Config(
            self._app, interface="asgi3", host="127.0.0.1", port=port, log_config=None,
            lifespan="off", timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        path = scope["raw_path"].decode()
        self.asked.append(path)
        auth = headers.get("authorization", "")
        if not auth.endswith(signature(scope["method"], path, headers, body, auth)):
            await self._refuse(send, 403, "InvalidSignatureException", "the signature differs")
            return
        await self._route(path, json.loads(body), send)

    async def _route(self, path: str, asked: dict[str, Any], send: Any) -> None:
        if path.startswith("/model/"):
            assert unquote(path.split("/")[2]) == "a.model-v1:0"
            if not asked["messages"]:
                await self._refuse(send, 400, "ValidationException", "messages is empty")
                return
            turns = [*asked.get("system", []), *asked["messages"]]
            request = {"messages": turns, "max_tokens": asked["inferenceConfig"]["maxTokens"]}
            await self._bedrock(path.endswith("-stream"), request, send)
            return
        assert path.split("/")[2] == "my-endpoint"
        streams = path.endswith("-stream")
        request = asked
        if "inputs" in asked:
            if not asked["inputs"].removesuffix("Assistant:").strip():
                await self._refuse(send, 424, "ModelError", "inputs is empty")
                return
            request = {
                "messages": [asked["inputs"]],
                "max_tokens": asked["parameters"]["max_new_tokens"],
            }
        if not request["messages"]:
            await self._refuse(send, 424, "ModelError", "messages is empty")
            return
        tgi = "details" in asked.get("parameters", {})
        shape = "messages" if "messages" in asked else "tgi" if tgi else "lmi"
        await self._sagemaker(shape, streams, request, send)

    async def _bedrock(self, streams: bool, request: dict[str, Any], send: Any) -> None:
        if not streams:
            text = "".join([piece async for piece in self._talk(request)])
            message = {"role": "assistant", "content": [{"text": text}]}
            await self._reply(send, {"output": {"message": message}, "stopReason": "end_turn"})
            return
        pieces = self._talk(request)
        first = await anext(pieces)
        await self._begin(send, KIND)
        await self._part(send, event("messageStart", {"role": "assistant"}))
        await self._part(send, event("contentBlockDelta", {"delta": {"text": first}}))
        async for text in pieces:
            await self._part(send, event("contentBlockDelta", {"delta": {"text": text}}))
        await self._part(send, event("messageStop", {"stopReason": "max_tokens"}))
        await send({"type": "http.response.body", "body": b""})

    async def _sagemaker(
        self, shape: str, streams: bool, request: dict[str, Any], send: Any
    ) -> None:
        if not streams:
            text = "".join([piece async for piece in self._talk(request)])
            whole: Any = {"generated_text": text}
            if shape == "messages":
                whole = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
            await self._reply(send, [whole] if shape == "tgi" else whole)
            return
        prefix, end = (b"", b"\n") if shape == "lmi" else (b"data: ", b"\n\n")
        pieces = self._talk(request)
        first = await anext(pieces)
        await self._begin(send, KIND)

        async def say(frame: dict[str, Any]) -> None:
            line = prefix + json.dumps(frame).encode() + end
            half = len(line) // 2  # parts are cut anywhere
            parts = event("PayloadPart", line[:half]) + event("PayloadPart", line[half:])
            await self._part(send, parts)

        def piece(text: str) -> dict[str, Any]:
            if shape == "messages":
                return {"choices": [{"delta": {"content": text}, "finish_reason": None}]}
            return {"token": {"text": text}}

        await say(piece(first))
        async for text in pieces:
            await say(piece(text))
        if shape == "messages":
            await say({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        else:
            await say({"token": {"text": ""}, "details": {"finish_reason": "length"}})
        await send({"type": "http.response.body", "body": b""})

    async def _talk(self, request: dict[str, Any]) -> AsyncIterator[str]:
        said = random.Random(json.dumps(request["messages"]))
        for place in range(request["max_tokens"]):
            await asyncio.sleep(0.001 * (place > 50))
            yield said.choice("abcdefghijklmnopqrstuvwxyz ")

    async def _refuse(self, send: Any, status: int, kind: str, said: str) -> None:
        headers = [(b"x-amzn-errortype", kind.encode()), (b"content-type", b"application/json")]
        fields: dict[str, Any] = {"message": said}
        if kind == "ModelError":
            fields = {"Message": said, "OriginalStatusCode": 400, "OriginalMessage": said}
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(fields).encode()})

    async def _reply(self, send: Any, value: Any) -> None:
        await self._begin(send, "application/json")
        await send({"type": "http.response.body", "body": json.dumps(value).encode()})

    async def _begin(self, send: Any, kind: str) -> None:
        headers = [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _part(self, send: Any, data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})

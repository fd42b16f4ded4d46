"""POST /invocations: one JSON object or JSON Lines in; a reply, lines or a stream out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from tempfile import SpooledTemporaryFile
from typing import Any

from rag import logs
from rag.errors import InvalidRequest, Overloaded, PayloadTooLarge
from rag.service import json_lines, negotiation, replies
from rag.service.body import ClientLeft, body_parts
from rag.service.engine import Call, Done, Engine, Found
from rag.service.errors import problem_of
from rag.service.handling import READER_GRACE_S
from rag.service.metrics import Metrics
from rag.service.schemas import InvocationRequest, parse_request
from rag.service.state import Service
from rag.service.streaming import STREAMS, Exchange, watching
from rag.service.tracing import Tracing

IN_MEMORY_BYTES = 1 << 20
"""Of a JSON Lines body; a longer one lies on disk."""
PIECE_BYTES = 1 << 16
"""Of a JSON Lines reply that are sent at once; a shorter reply is sent whole."""


class Invocations:
    """Answers the requests of one service."""

    def __init__(self, service: Service, metrics: Metrics, tracing: Tracing) -> None:
        self._service = service
        self._metrics = metrics
        self._tracing = tracing

    async def answer(self, exchange: Exchange) -> None:
        """One exchange, to its end; raises what goes wrong before a reply has begun."""
        headers, access = exchange.headers, self._service.access
        if exchange.bundle and exchange.credential:
            access.check(exchange.credential, exchange.bundle)
        elif access.required and exchange.bundle not in self._service.engines:
            # Who may not ask a bundle is not told whether it is there.
            access.admit(await self._request(exchange), exchange.credential, exchange.bundle)
        with self._service.admit(exchange.bundle) as engine:
            if negotiation.is_json_lines(headers.content_type):
                await self._lines(engine, exchange)
                return
            request = await self._request(exchange)
            call = self._call(request, exchange.request_id, exchange.arrived, exchange)
            if call.request.stream:
                await self._stream(engine, call, exchange)
                return
            media_type = negotiation.choose(headers.accept, (negotiation.JSON,))
            with watching(exchange):
                reply = await whole_reply(engine, call)
            await exchange.reply(replies.dumps(reply), media_type=media_type)

    async def _request(self, exchange: Exchange) -> InvocationRequest:
        """The request in the body, which is one JSON object."""
        limits = self._service.limits
        request = parse_request(await exchange.body(limits), limits)
        exchange.named(request.request_id)
        return request

    def _call(
        self, request: InvocationRequest, request_id: str, arrived: float, exchange: Exchange
    ) -> Call:
        request = self._service.access.admit(request, exchange.credential, exchange.bundle)
        milliseconds = request.deadline_ms or self._service.limits.default_deadline_ms
        return Call(request, request_id, arrived, arrived + milliseconds / 1e3)

    async def _stream(self, engine: Engine, call: Call, exchange: Exchange) -> None:
        """Frames as they are made. The head is sent with the first of them, so that a failure
        before it has a status of its own.
        """
        media_type = negotiation.choose(exchange.headers.accept, STREAMS)
        primed = 1
        if call.request.on_generator_failure == "error" and call.request.mode == "answer":
            primed = 2  # the caller would rather have the generator's status than the passages
        try:
            async with asyncio.timeout_at(call.deadline + READER_GRACE_S):
                async with aclosing(frames(engine, call)) as made:
                    with watching(exchange):
                        first = [await anext(made) for _ in range(primed)]
                        await exchange.open(media_type)
                        for frame in first:
                            await exchange.frame(frame)
                        async for frame in made:
                            await exchange.frame(frame)
                await exchange.close()
        except TimeoutError:  # every stage keeps the deadline: it is the reader who does not
            raise ClientLeft from None

    async def _lines(self, engine: Engine, exchange: Exchange) -> None:
        """Every record's line. A failure after the first has left breaks the connection off: lines
        that are missing must not look like a whole reply.
        """
        limits, headers = self._service.limits, exchange.headers
        sent = headers.content_type.partition(";")[0].strip().lower()
        media_type = negotiation.choose(headers.accept, (sent, *negotiation.JSON_LINES))
        if exchange.credential:
            self._service.access.check(exchange.credential, exchange.bundle)
        until = exchange.arrived + limits.default_deadline_ms / 1e3
        parts = body_parts(
            exchange.receive,
            length=headers.content_length,
            most_bytes=limits.max_lines_bytes or limits.max_payload_bytes,
            deadline=None if limits.deadline_per_record else until,
        )

        async def answer(line: bytes, number: int) -> bytes:
            began = time.monotonic() if limits.deadline_per_record else exchange.arrived
            return await self._record(engine, line, number, began, exchange)

        with SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as body:
            async with aclosing(parts):
                await json_lines.spool(parts, body, limits.max_records)
            lines = json_lines.records(body, limits.max_payload_bytes)
            made = json_lines.replies(lines, answer, concurrency=limits.record_concurrency)
            async with aclosing(made):
                with watching(exchange):
                    rest = await self._send(made, exchange, media_type)
        if exchange.status:
            await exchange.close(rest)
        else:
            await exchange.reply(rest, media_type=media_type)

    async def _send(
        self, made: AsyncGenerator[bytes, None], exchange: Exchange, media_type: str
    ) -> bytes:
        """Sends replies in pieces as they are made; what is left when they have ended."""
        waiting: list[bytes] = []
        size = 0
        async for reply in made:
            waiting.append(reply)
            size += len(reply)
            if size >= PIECE_BYTES:
                if not exchange.status:
                    await exchange.open(media_type, frames=False)
                await exchange.piece(b"".join(waiting))
                waiting, size = [], 0
        return b"".join(waiting)

    async def _record(
        self, engine: Engine, line: bytes, number: int, began: float, exchange: Exchange
    ) -> bytes:
        """One record's line: its reply or its error."""
        request_id = f"{exchange.request_id}-{number}"
        with logs.about(request_id=request_id), self._tracing.span("record", began=began):
            try:
                if len(line) > self._service.limits.max_payload_bytes:
                    raise PayloadTooLarge("the record is longer than a request may be; split it")
                request = parse_request(line, self._service.limits)
                if request.stream:
                    raise InvalidRequest("stream is true in a JSON Lines record; leave it out")
                request_id = request.request_id or request_id
                call = self._call(request, request_id, began, exchange)
                reply = replies.dumps(await self._whole(engine, call))
            except Exception as error:  # noqa: BLE001 - every failure is an answer, see errors.py
                problem = problem_of(error, request_id)
                self._metrics.record(problem.status, exchange.bundle)
                return problem.to_json(request_id)
            self._metrics.record(200, exchange.bundle)
            return reply

    async def _whole(self, engine: Engine, call: Call) -> dict[str, Any]:
        """The reply to a record; one with a deadline of its own waits where the service is full."""
        while True:
            try:
                return await whole_reply(engine, call)
            except Overloaded as error:
                again = time.monotonic() + error.retry_after_s
                if not self._service.limits.deadline_per_record or again >= call.deadline:
                    raise
                await asyncio.sleep(error.retry_after_s)


async def whole_reply(engine: Engine, call: Call) -> dict[str, Any]:
    """The reply to a request that does not stream; raises what `Engine.events` raises."""
    if call.request.mode == "retrieve":
        found, done = await engine.retrieve(call)
        return {"passages": replies.passages_json(found)} | _closing_fields(engine, call, done)
    passages: list[dict[str, Any]] = []
    reply: dict[str, Any] = {}
    async with aclosing(engine.events(call)) as events:
        async for event in events:
            if isinstance(event, Found):
                passages = replies.passages_json(event.passages)
            elif isinstance(event, Done):
                reply = _answer_fields(call, event) | {"passages": passages}
                reply |= _closing_fields(engine, call, event)
    return reply


async def frames(engine: Engine, call: Call) -> AsyncGenerator[dict[str, Any], None]:
    """The frames of a stream: passages, deltas, done."""
    async with aclosing(engine.events(call)) as events:
        async for event in events:
            if isinstance(event, Found):
                yield {
                    "type": "passages",
                    "passages": replies.passages_json(event.passages),
                    "index_version": engine.version,
                    "request_id": call.request_id,
                }
            elif isinstance(event, Done):
                yield (
                    {"type": "done"}
                    | _answer_fields(call, event)
                    | _closing_fields(engine, call, event)
                )
            else:
                yield {"type": "delta", "text": event.text}


def _answer_fields(call: Call, done: Done) -> dict[str, Any]:
    return replies.answer_json(done.answer) if call.request.mode == "answer" else {}


def _closing_fields(engine: Engine, call: Call, done: Done) -> dict[str, Any]:
    """What a whole reply and a stream's last frame have in common."""
    request, searched = call.request, {}
    if done.queries != [request.query] and done.queries != [request.to_query().text]:
        searched = {"queries": done.queries}
    return {
        "index_version": engine.version,
        "generator": done.generator,
        **searched,
        "degraded": done.degraded,
        "timings_ms": replies.timings_json(done.timings_ms),
        "request_id": call.request_id,
    }

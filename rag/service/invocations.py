"""POST /invocations: one JSON object or JSON Lines in; a reply, lines or a stream out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from rag import logs
from rag.errors import InvalidRequest
from rag.service import json_lines, negotiation, replies
from rag.service.body import ClientLeft, read_body
from rag.service.engine import Call, Done, Engine, Found
from rag.service.errors import problem_of
from rag.service.handling import READER_GRACE_S
from rag.service.metrics import Metrics
from rag.service.schemas import InvocationRequest, parse_request
from rag.service.state import Service
from rag.service.streaming import STREAMS, Exchange, watching
from rag.service.tracing import Tracing


class Invocations:
    """Answers the requests of one service."""

    def __init__(self, service: Service, metrics: Metrics, tracing: Tracing) -> None:
        self._service = service
        self._metrics = metrics
        self._tracing = tracing

    async def answer(self, exchange: Exchange) -> None:
        """One exchange, to its end; raises what goes wrong before a reply has begun."""
        limits, headers = self._service.limits, exchange.headers
        with self._service.admit() as engine:
            lines = negotiation.is_json_lines(headers.content_type)
            body = await read_body(
                exchange.receive,
                length=headers.content_length,
                most_bytes=limits.max_payload_bytes,
                deadline=exchange.arrived + limits.default_deadline_ms / 1e3,
            )
            if lines:
                await self._lines(engine, body, exchange)
                return
            request = parse_request(body, limits)
            exchange.named(request.request_id)
            call = self._call(request, exchange.request_id, exchange.arrived, exchange.credential)
            if call.request.stream:
                await self._stream(engine, call, exchange)
                return
            media_type = negotiation.choose(headers.accept, (negotiation.JSON,))
            async with watching(exchange.receive):
                reply = await whole_reply(engine, call)
            await exchange.reply(replies.dumps(reply), media_type=media_type)

    def _call(
        self, request: InvocationRequest, request_id: str, arrived: float, credential: str
    ) -> Call:
        request = self._service.access.admit(request, credential, "")
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
                async with aclosing(frames(engine, call)) as made, watching(exchange.receive):
                    first = [await anext(made) for _ in range(primed)]
                    await exchange.open(media_type)
                    for frame in first:
                        await exchange.frame(frame)
                    async for frame in made:
                        await exchange.frame(frame)
                await exchange.close()
        except TimeoutError:  # every stage keeps the deadline: it is the reader who does not
            raise ClientLeft from None

    async def _lines(self, engine: Engine, body: bytes, exchange: Exchange) -> None:
        limits, headers = self._service.limits, exchange.headers
        sent = headers.content_type.partition(";")[0].strip().lower()
        media_type = negotiation.choose(headers.accept, (sent, *negotiation.JSON_LINES))
        lines = json_lines.records(body, limits.max_records)
        if exchange.credential:
            self._service.access.claims(exchange.credential)

        async def answer(line: bytes, number: int) -> bytes:
            began = time.monotonic() if limits.deadline_per_record else exchange.arrived
            return await self._record(engine, line, number, began, exchange)

        async with watching(exchange.receive):
            reply = await json_lines.answer_all(
                lines, answer, concurrency=limits.record_concurrency
            )
        await exchange.reply(reply, media_type=media_type)

    async def _record(
        self, engine: Engine, line: bytes, number: int, began: float, exchange: Exchange
    ) -> bytes:
        """One record's line: its reply or its error."""
        request_id = f"{exchange.request_id}-{number}"
        with logs.about(request_id=request_id), self._tracing.span("record", began=began):
            try:
                request = parse_request(line, self._service.limits)
                if request.stream:
                    raise InvalidRequest("stream is true in a JSON Lines record; leave it out")
                request_id = request.request_id or request_id
                call = self._call(request, request_id, began, exchange.credential)
                reply = replies.dumps(await whole_reply(engine, call))
            except Exception as error:  # noqa: BLE001 - every failure is an answer, see errors.py
                problem = problem_of(error, request_id)
                self._metrics.record(problem.status)
                return problem.to_json(request_id)
            self._metrics.record(200)
            return reply


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
    searched = {"queries": done.queries} if done.queries != [call.request.to_query().text] else {}
    return {
        "index_version": engine.version,
        "generator": done.generator,
        **searched,
        "degraded": done.degraded,
        "timings_ms": replies.timings_json(done.timings_ms),
        "request_id": call.request_id,
    }

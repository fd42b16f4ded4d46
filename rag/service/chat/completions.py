"""POST /v1/chat/completions: OpenAI's protocol over the index, whole or streamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from rag.service import negotiation
from rag.service.body import ClientLeft
from rag.service.chat.replies import Completion, error_json
from rag.service.chat.requests import ChatRequest, own_request, parse_chat
from rag.service.engine import Call, Delta, Done, Engine, Found
from rag.service.errors import problem_of
from rag.service.handling import READER_GRACE_S
from rag.service.replies import dumps
from rag.service.state import Service
from rag.service.streaming import Exchange, watching
from rag.types import Passage


class ChatCompletions:
    """Answers the chat requests of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def answer(self, exchange: Exchange) -> None:
        """One exchange, to its end; raises what goes wrong before a reply has begun."""
        exchange.error_body = error_json
        service = self._service
        if not service.multi_model:
            with service.admit() as engine:
                await self._complete(engine, await self._read(exchange), exchange)
            return
        chat = await self._read(exchange)  # it names the bundle, where no header does
        exchange.bundle = exchange.bundle or chat.model
        # Who may not ask a bundle is not told whether it is there.
        service.access.check(exchange.credential, exchange.bundle)
        with service.admit(exchange.bundle) as engine:
            await self._complete(engine, chat, exchange)

    async def _read(self, exchange: Exchange) -> ChatRequest:
        return parse_chat(await exchange.body(self._service.limits))

    async def _complete(self, engine: Engine, chat: ChatRequest, exchange: Exchange) -> None:
        limits = self._service.limits
        request = own_request(chat, limits, rewrites=engine.rewrites)
        request = self._service.access.admit(request, exchange.credential, exchange.bundle)
        milliseconds = request.deadline_ms or limits.default_deadline_ms
        deadline = exchange.arrived + milliseconds / 1e3
        call = Call(request, exchange.request_id, exchange.arrived, deadline)
        if request.stream:
            await self._stream(engine, chat, call, exchange)
            return
        with watching(exchange):
            reply = await _whole(engine, chat, call)
        await exchange.reply(dumps(reply))

    async def _stream(
        self, engine: Engine, chat: ChatRequest, call: Call, exchange: Exchange
    ) -> None:
        """Chunks as they are made. The head is sent with the answer's first text, so that a failure
        before it has a status of its own; one after it is an error chunk.
        """
        try:
            async with asyncio.timeout_at(call.deadline + READER_GRACE_S):
                async with aclosing(_chunks(engine, chat, call)) as made:
                    with watching(exchange):
                        first = [await anext(made), await anext(made)]
                        await exchange.open(negotiation.EVENTS)
                        for chunk in first:
                            await exchange.data(dumps(chunk))
                        try:
                            async for chunk in made:
                                await exchange.data(dumps(chunk))
                        except ClientLeft:
                            raise
                        except Exception as error:  # noqa: BLE001 - a stream ends with its failure
                            problem = problem_of(error, exchange.request_id)
                            await exchange.data(dumps(error_json(problem, exchange.request_id)))
                            exchange.status = problem.status
                        await exchange.data(b"[DONE]")
                await exchange.close()
        except TimeoutError:  # every stage keeps the deadline: it is the reader who does not
            raise ClientLeft from None


async def _whole(engine: Engine, chat: ChatRequest, call: Call) -> dict[str, Any]:
    passages: list[Passage] = []
    made = Completion(call, engine.version, chat.model or engine.generator_name)
    reply: dict[str, Any] = {}
    async with aclosing(engine.events(call)) as events:
        async for event in events:
            if isinstance(event, Found):
                passages = event.passages
            elif isinstance(event, Done):
                shown = passages if chat.rag.passages else None
                reply = made.whole(event, shown, chat.ignored)
    return reply


async def _chunks(
    engine: Engine, chat: ChatRequest, call: Call
) -> AsyncGenerator[dict[str, Any], None]:
    """The role and the passages, the text, the finish reason, and the usage if it is wanted."""
    made = Completion(call, engine.version, chat.model or engine.generator_name)
    async with aclosing(engine.events(call)) as events:
        async for event in events:
            if isinstance(event, Found):
                found = made.found(event.passages if chat.rag.passages else None)
                yield made.chunk({"role": "assistant", "content": ""}, rag=found)
            elif isinstance(event, Delta):
                yield made.chunk({"content": event.text})
            else:
                yield made.chunk({}, event.reason, rag=made.closing(event, chat.ignored))
                if chat.stream_options is not None and chat.stream_options.include_usage:
                    yield made.usage_chunk(event)

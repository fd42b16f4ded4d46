"""From a request to its events: encode, search and rerank in batches, then answer, under one
deadline.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from rag.answering.answer import Answerer, Finished, TextDelta, Usage
from rag.errors import (
    GeneratorFailure,
    GeneratorSkipped,
    GeneratorTimeout,
    InvalidRequest,
    RequestError,
)
from rag.models.generator import FinishReason, Generator
from rag.retrieval.merging import merged
from rag.retrieval.searcher import Searcher, needs_vector
from rag.service.batching import BatchStats
from rag.service.encoding import EncoderStage
from rag.service.errors import one_line, type_name
from rag.service.expanding import Expander
from rag.service.planning import TimePlan
from rag.service.reranking import Reranking
from rag.service.schemas import InvocationRequest
from rag.service.searching import Searched, SearchStage
from rag.types import Answer, Passage, Query

logger = logging.getLogger(__name__)

GENERATOR_GRACE_S = 0.25
"""How long after the deadline a generator that does not keep it is cut off."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request under way; `arrived` and `deadline` are `time.monotonic()` moments."""

    request: InvocationRequest
    request_id: str
    arrived: float
    deadline: float


class Found(NamedTuple):
    """Retrieval is done: the passages, best first."""

    passages: list[Passage]


class Delta(NamedTuple):
    """The next piece of the answer's text."""

    text: str


@dataclass(slots=True)
class Done:
    """Everything is done. `answer` is None where none was asked for or none could be made;
    `generator` names who was asked, `reason` how the answer ended; `queries` are the texts that
    were searched for; `degraded` says what was left out, each as `stage: reason: text`; times are
    in milliseconds, `first_token_ms` from the request's arrival.
    """

    answer: Answer | None = None
    generator: str | None = None
    reason: FinishReason = "stop"
    usage: Usage = field(default_factory=Usage)
    queries: list[str] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)
    first_token_ms: float | None = None


Event = Found | Delta | Done


class _OneFound(NamedTuple):
    """What one query found; `embed_ms` is how long its encoder's batch took."""

    embed_ms: float
    searched: Searched


class Engine:
    """One generation at work: its encoder, its search, and who answers from what they find.

    `encoder` may serve other engines too: at the end it goes to `give_back`, which closes it where
    nobody else uses it. `expander` makes better queries of a request's; `reranking` reads the
    fused passages again, for requests that ask for it; `reserve_s` is what is kept of a request's
    time for its answer (see rag/service/planning.py); `observe_search` and `observe_done` hear of
    every batch that was searched (on its thread) and of every finished request. Without
    `owns_models`, generator and reranker are closed by others.
    """

    def __init__(
        self,
        searcher: Searcher,
        encoder: EncoderStage,
        answerer: Answerer,
        *,
        version: str,
        generator: Generator,
        queue_max_items: int,
        give_back: Callable[[EncoderStage], Awaitable[bool]] = EncoderStage.close,
        expander: Expander | None = None,
        reranking: Reranking | None = None,
        owns_models: bool = True,
        stalled_after_s: float = 120.0,
        reserve_s: float = 2.0,
        observe_search: Callable[[BatchStats], None] | None = None,
        observe_done: Callable[[Done], None] | None = None,
    ) -> None:
        self.version = version
        self._searcher = searcher
        self._encoder = encoder
        self._give_back = give_back
        self._answerer = answerer
        self._generator = generator
        self._expander = expander or Expander(None)
        self._reranking = reranking
        self._reserve_s = reserve_s
        self._owns_models = owns_models
        self._observe_done = observe_done
        self._search = SearchStage(
            searcher,
            max_waiting=queue_max_items,
            stalled_after_s=stalled_after_s,
            observe=observe_search,
        )

    @property
    def healthy(self) -> bool:
        if not (self._encoder.healthy and self._search.healthy):
            return False
        return self._reranking is None or self._reranking.healthy

    @property
    def depth(self) -> int:
        """How many queries wait, for the encoder or for the search."""
        return self._encoder.depth + self._search.depth

    @property
    def encoder(self) -> EncoderStage:
        """The stage that other engines may share."""
        return self._encoder

    @property
    def search_depth(self) -> int:
        """How many queries wait for the search alone."""
        return self._search.depth

    @property
    def generator_name(self) -> str:
        """The name of the model that answers."""
        return self._generator.name

    @property
    def rewrites(self) -> bool:
        """Whether a follow-up can be made a stand-alone query."""
        return self._expander.expands

    async def close(self) -> bool:
        """Fails whoever still waits; True when no thread is left inside a library."""
        ended = await self._give_back(self._encoder)
        ended = await self._search.close() and ended
        if not self._owns_models:
            return ended
        await self._generator.aclose()
        return (self._reranking is None or await self._reranking.close()) and ended

    async def events(self, call: Call) -> AsyncGenerator[Event, None]:
        """`Found`, then the answer's `Delta`s, then `Done`.

        Raises what retrieval raises. A GeneratorFailure is raised where the request asks for it,
        and where text has already been streamed; else it is told in `Done.degraded`.
        """
        request, done = call.request, Done()
        self._answerer.validate(request.template)
        wants_answer = request.mode == "answer"
        reserve_s = self._reserve_s if wants_answer else 0.0
        plan = TimePlan.of(call.arrived, call.deadline, reserve_s=reserve_s)
        passages, best_score = await self._retrieve(call, plan, done)
        yield Found(passages)
        if wants_answer:
            async with aclosing(self._answer(call, plan, passages, best_score, done)) as pieces:
                async for piece in pieces:
                    yield piece
        yield self._finish(call, done)

    async def retrieve(self, call: Call) -> tuple[list[Passage], Done]:
        """What `events` tells of a request that wants no answer, without the steps between."""
        done = Done()
        self._answerer.validate(call.request.template)
        plan = TimePlan.of(call.arrived, call.deadline, reserve_s=0.0)
        passages, _ = await self._retrieve(call, plan, done)
        return passages, self._finish(call, done)

    def _finish(self, call: Call, done: Done) -> Done:
        done.timings_ms["total"] = (time.monotonic() - call.arrived) * 1e3
        if self._observe_done is not None:
            self._observe_done(done)
        return done

    async def _answer(
        self,
        call: Call,
        plan: TimePlan,
        passages: Sequence[Passage],
        best_score: float | None,
        done: Done,
    ) -> AsyncGenerator[Delta, None]:
        """The answer's deltas; the rest goes into `done`."""
        done.generator = self._generator.name
        began, said = time.monotonic(), False
        try:
            async with aclosing(self._generate(call, plan, passages, best_score, done)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Finished):
                        done.answer, done.reason = piece.answer, piece.reason
                        done.usage = piece.usage
                    else:
                        if not said:
                            done.first_token_ms = (time.monotonic() - call.arrived) * 1e3
                        said = True
                        yield Delta(piece.text)
        except GeneratorFailure as failure:
            request = call.request
            if request.on_generator_failure == "error" or (request.stream and said):
                raise
            logger.warning(str(failure), extra={"request_id": call.request_id})
            done.degraded.append(_note("generator", failure))
        done.timings_ms["generate"] = (time.monotonic() - began) * 1e3

    async def _retrieve(
        self, call: Call, plan: TimePlan, done: Done
    ) -> tuple[list[Passage], float | None]:
        """The passages above the request's floor, and the probability that the best of them is
        relevant, where scores are probabilities; writes down where the time went.
        """
        query = call.request.to_query()
        self._searcher.validate(query)
        if call.request.rerank:
            query = self._deeper(query)
        queries = await self._expand(call, query, done)
        began = time.monotonic()
        found = await self._find_all(queries, call.deadline)
        elapsed_ms = (time.monotonic() - began) * 1e3
        busy = {
            "embed": max(one.embed_ms for one in found),
            "search": max(one.searched.run_ms for one in found),
        }
        done.timings_ms.update(busy)
        done.timings_ms["queue"] = max(0.0, elapsed_ms - sum(busy.values()))
        rankings = [one.searched.passages for one in found]
        passages = merged(rankings, query.top_k, min_score=call.request.min_score)
        best_score = None
        if len(found) == 1 and self._searcher.has_probabilities(query):
            best_score = max((passage.score for passage in passages), default=None)
        if call.request.rerank and self._reranking is not None:
            rewritten = call.request.query_expansion == "rewrite"
            asked = queries[0].text if rewritten else query.text
            passages = await self._rerank(call, plan, asked, passages, self._reranking, done)
        return passages[: call.request.top_k], best_score

    def _deeper(self, query: Query) -> Query:
        """`query` with as many passages as are reranked, however few of them are wanted."""
        if self._reranking is None:
            raise InvalidRequest(
                "rerank is true and this service has no reranker; leave it out, or set RAG_RERANKER"
            )
        depth = min(self._reranking.depth, self._searcher.max_top_k)
        return replace(query, top_k=max(query.top_k, depth))

    async def _rerank(
        self,
        call: Call,
        plan: TimePlan,
        query: str,
        passages: list[Passage],
        reranking: Reranking,
        done: Done,
    ) -> list[Passage]:
        """The reranker's order, or the order as it is where there is none: `degraded` says why."""
        began = time.monotonic()
        left_s = plan.retrieved_by - began
        if left_s <= reranking.usual_s:
            done.degraded.append(
                f"rerank: skipped: {max(0.0, left_s) * 1e3:.0f} ms were left for it before the"
                f" answer's own time, and it takes about {reranking.usual_s * 1e3:.0f} ms"
            )
            return passages
        try:
            passages = await reranking.rerank(query, passages, until=plan.retrieved_by)
        except RequestError as failure:
            logger.warning(str(failure), extra={"request_id": call.request_id})
            done.degraded.append(_note("rerank", failure))
        done.timings_ms["rerank"] = (time.monotonic() - began) * 1e3
        return passages

    async def _expand(self, call: Call, query: Query, done: Done) -> list[Query]:
        """What to search for; writes down what that is, what failed and how long it took."""
        began = time.monotonic()
        made = await self._expander.searches(call.request, query, deadline=call.deadline)
        if call.request.query_expansion != "none":
            done.timings_ms["expand"] = (time.monotonic() - began) * 1e3
        for note in made.notes:
            logger.warning(note, extra={"request_id": call.request_id})
            done.degraded.append(one_line(note))
        done.queries = [searched.text for searched in made.queries]
        return made.queries

    async def _find_all(self, queries: Sequence[Query], deadline: float) -> list[_OneFound]:
        """The results of all queries, in order; where one fails, the others are given up."""
        if len(queries) == 1:
            return [await self._find(queries[0], deadline)]
        tasks = [asyncio.ensure_future(self._find(query, deadline)) for query in queries]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _find(self, query: Query, deadline: float) -> _OneFound:
        if not needs_vector(query):
            return _OneFound(0.0, await self._search.search(query, None, deadline=deadline))
        encoder, search = self._encoder, self._search
        known = encoder.known(query.text)
        if known is not None:
            return _OneFound(0.0, await search.search(query, known, deadline=deadline))
        if encoder.on_processors:
            made = await encoder.encode_then(query.text, query, search.at_once, deadline=deadline)
            return _OneFound(made.encoding.run_ms, made.result)
        encoding = await encoder.encode_new(query.text, deadline=deadline)
        searched = await search.search(query, encoding.query, deadline=deadline)
        return _OneFound(encoding.run_ms, searched)

    async def _generate(
        self,
        call: Call,
        plan: TimePlan,
        passages: Sequence[Passage],
        best_score: float | None,
        done: Done,
    ) -> AsyncGenerator[TextDelta | Finished, None]:
        """The answerer's events; GeneratorTimeout also where the generator keeps no deadline, and
        where there is no time to ask it.
        """
        if not plan.may_generate:
            raise GeneratorSkipped(
                "retrieval left no time for an answer, so none was asked for; raise deadline_ms"
            )
        most = plan.passages(len(passages))
        if most < len(passages):
            done.degraded.append(
                f"passages: fewer: time was short, the prompt holds {most} of {len(passages)}"
            )
        request, options = call.request, call.request.generation
        stream = self._answerer.stream(
            request.to_query().text,
            passages,
            history=request.history(),
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            template=request.template,
            unsupported=request.unsupported,
            max_passages=most,
            best_score=best_score,
            deadline=call.deadline,
        )
        async with _closing(stream):
            while True:
                try:
                    async with asyncio.timeout_at(call.deadline + GENERATOR_GRACE_S):
                        event = await anext(stream)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise GeneratorTimeout(
                        "the generator did not finish before the deadline; raise deadline_ms"
                    ) from None
                yield event


@asynccontextmanager
async def _closing(stream: AsyncIterator[TextDelta | Finished]) -> AsyncIterator[None]:
    """Closes `stream` at the end, which stops the generator's work."""
    try:
        yield
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


def _note(stage: str, failure: RequestError) -> str:
    """`stage: reason: text`, the reason being the failure's type without its stage."""
    reason = type_name(type(failure)).removeprefix("generator_").removeprefix("reranker_")
    return f"{stage}: {reason}: {one_line(str(failure))}"

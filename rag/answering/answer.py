"""One answer: prompt, generator, citations, check."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

from rag.answering.citations import CitationParser, parse_citations, without_markers
from rag.answering.prompt import CountTokens, build_prompt, estimate_tokens, find_template
from rag.answering.sentence_gate import SentenceGate
from rag.answering.support import Support
from rag.answering.templates import TEMPLATES, PromptTemplate
from rag.errors import InvalidRequest
from rag.models.abstention import abstention, is_abstention
from rag.models.generator import Delta, Finish, FinishReason, Generator, Prompt
from rag.types import Answer, Citation, Message, Passage

Unsupported = Literal["flag", "drop"]
"""What becomes of a sentence that the passages do not bear out: told, or left out."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer's text; together they are `Answer.text`."""

    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of prompt and answer: the endpoint's count, or else the tokenizer's; `estimated`
    where neither is at hand.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event. `used` are the passages that the generator was given; `unknown` are the
    ranks it cited that do not exist, and that were taken out of the text; `dropped` is how many
    unsupported sentences were left out.
    """

    answer: Answer
    used: list[Passage]
    unknown: tuple[int, ...] = ()
    reason: FinishReason = "stop"
    usage: Usage = field(default_factory=Usage)
    dropped: int = 0


AnswerEvent = TextDelta | Finished


class Answerer:
    """Answers questions from passages with one generator.

    `support` checks sentences against passages, and `unsupported` says what becomes of those that
    fail. `template` is the prompt, one of `templates`; requests may name another one of `allowed`.
    `max_context_tokens` is the generator's window, prompt and answer together; `count_tokens` its
    tokenizer, if known. Without a `best_score` of at least `abstain_below` it abstains. Raises
    ConfigurationError or InvalidRequest for a `template` that does not exist.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        support: Support,
        template: str = "default",
        templates: Mapping[str, PromptTemplate] = TEMPLATES,
        allowed: Collection[str] = (),
        max_context_tokens: int = 8192,
        count_tokens: CountTokens | None = None,
        unsupported: Unsupported = "flag",
        abstain_below: float | None = None,
    ) -> None:
        for name in (template, *allowed):
            find_template(name, templates)
        self._generator = generator
        self._support = support
        self._template = template
        self._templates = templates
        self._allowed = frozenset({template, *allowed})
        self._max_context_tokens = max_context_tokens
        self._count_tokens = count_tokens
        self._unsupported = unsupported
        self._abstain_below = abstain_below

    def validate(self, template: str | None) -> None:
        """Raises InvalidRequest for a template that requests may not choose."""
        if template is not None and template not in self._allowed:
            raise InvalidRequest(
                f"template '{template[:80]}' cannot be chosen here; there are:"
                f" {', '.join(sorted(self._allowed))}"
            )

    async def stream(
        self,
        query: str,
        passages: Sequence[Passage],
        *,
        history: Sequence[Message] = (),
        max_tokens: int = 512,
        temperature: float = 0.0,
        template: str | None = None,
        unsupported: Unsupported | None = None,
        max_passages: int | None = None,
        best_score: float | None = None,
        deadline: float,
    ) -> AsyncIterator[AnswerEvent]:
        """Text as it comes, then exactly one Finished.

        Without passages, and where `best_score` (a probability that the best one is relevant) is
        too low, it abstains at once, in the question's language, and asks no generator. Where
        unsupported sentences are dropped, text comes a whole sentence at a time. At most
        `max_passages` go into the prompt. `deadline` is a `time.monotonic()` moment. Raises
        InvalidRequest where no prompt can be built, and whatever GeneratorFailure the generator
        raises. Closing the iterator stops the generator.
        """
        self.validate(template)
        if not passages or self._is_below(best_score):
            text = abstention(query)
            yield TextDelta(text)
            yield Finished(Answer(text, (), self._generator.name, abstained=True), [])
            return
        prompt, used = build_prompt(
            query,
            passages[:max_passages],
            template=template or self._template,
            templates=self._templates,
            history=history,
            max_context_tokens=self._max_context_tokens,
            count_tokens=self._count_tokens,
            max_tokens=max_tokens,
            temperature=temperature,
        )
        drops = (unsupported or self._unsupported) == "drop"
        made = (_Dropping if drops else _Flagging)(query, used, self._support)
        finish = Finish()
        parser = CitationParser([passage.rank for passage in used])
        async with _deltas(self._generator, prompt, deadline) as deltas:
            async for delta in deltas:
                finish = delta.finish or finish
                for piece in parser.feed(delta.text):
                    for text in await made.feed(piece):
                        yield TextDelta(text)
        for piece in parser.flush():
            for text in await made.feed(piece):
                yield TextDelta(text)
        for text in await made.flush():
            yield TextDelta(text)
        answer = Answer(
            made.text, tuple(made.citations), self._generator.name, abstained=made.abstained
        )
        usage = self._usage(prompt, parser.text, finish)
        yield Finished(
            answer, used, tuple(parser.unknown), finish.reason, usage, dropped=made.dropped
        )

    async def answer(
        self,
        query: str,
        passages: Sequence[Passage],
        *,
        history: Sequence[Message] = (),
        max_tokens: int = 512,
        temperature: float = 0.0,
        best_score: float | None = None,
        deadline: float,
    ) -> Answer:
        """The finished answer; raises as `stream` does."""
        finished: Finished | None = None
        events = self.stream(
            query,
            passages,
            history=history,
            max_tokens=max_tokens,
            temperature=temperature,
            best_score=best_score,
            deadline=deadline,
        )
        async for event in events:
            if isinstance(event, Finished):
                finished = event
        if finished is None:
            raise RuntimeError("an answer's stream ended without its last event")
        return finished.answer

    def _is_below(self, score: float | None) -> bool:
        floor = self._abstain_below
        return score is not None and floor is not None and score < floor

    def _usage(self, prompt: Prompt, text: str, finish: Finish) -> Usage:
        count = self._count_tokens or estimate_tokens
        asked, said = finish.prompt_tokens, finish.completion_tokens
        estimated = self._count_tokens is None and (asked is None or said is None)
        if asked is None:
            asked = sum(count(message.content) for message in prompt.messages)
        return Usage(asked, count(text) if said is None else said, estimated)


class _Flagging:
    """Text as it comes; its sentences are checked at the end."""

    dropped = 0

    def __init__(self, query: str, used: Sequence[Passage], support: Support) -> None:
        self._used = used
        self._support = support
        self.text = ""
        self.citations: list[Citation] = []
        self.abstained = False

    async def feed(self, piece: str) -> list[str]:
        self.text += piece
        return [piece]

    async def flush(self) -> list[str]:
        self.abstained = is_abstention(without_markers(self.text))
        if not self.abstained:
            ranks = [passage.rank for passage in self._used]
            found = parse_citations(self.text, ranks, uncited=True)
            check = self._support.check
            self.citations = await asyncio.to_thread(check, self.text, found, self._used)
        return []


class _Dropping:
    """Sentences once they are whole and checked, without those that the passages do not bear out;
    the abstention sentence where none is left.
    """

    def __init__(self, query: str, used: Sequence[Passage], support: Support) -> None:
        self._query = query
        self._used = used
        self._support = support
        self._gate = SentenceGate([passage.rank for passage in used])
        self._gap = ""
        self.text = ""
        self.citations: list[Citation] = []
        self.abstained = False
        self.dropped = 0

    async def feed(self, piece: str) -> list[str]:
        return await self._kept(self._gate.feed(piece))

    async def flush(self) -> list[str]:
        kept = await self._kept(self._gate.flush())
        if self.dropped and not self.text:
            self.text = abstention(self._query)
            kept = [self.text]
        self.abstained = is_abstention(without_markers(self.text))
        if self.abstained:
            self.citations = []
        return kept

    async def _kept(self, sentences: Sequence[tuple[str, Citation | None]]) -> list[str]:
        return [
            text
            for sentence, citation in sentences
            if (text := await self._pass(sentence, citation))
        ]

    async def _pass(self, sentence: str, citation: Citation | None) -> str:
        """What is shown of it: the sentence after the gap before it, or nothing."""
        if citation is not None and not is_abstention(without_markers(sentence)):
            check = self._support.check
            [citation] = await asyncio.to_thread(check, sentence, [citation], self._used)
            if citation.supported is False:
                self.dropped += 1
                return ""
        body = sentence.rstrip()
        shown = (self._gap if self.text else "") + body
        self._gap = sentence[len(body) :] or " "
        if citation is not None:
            shift = len(self.text) + len(shown) - len(body)
            shifted = replace(citation, start=citation.start + shift, end=citation.end + shift)
            self.citations.append(shifted)
        self.text += shown
        return shown


@asynccontextmanager
async def _deltas(
    generator: Generator, prompt: Prompt, deadline: float
) -> AsyncIterator[AsyncIterator[Delta]]:
    """The generator's stream, closed at the end where it can be closed."""
    stream = generator.stream(prompt, deadline=deadline)
    if isinstance(stream, AsyncGenerator):
        async with aclosing(stream):
            yield stream
    else:
        yield stream

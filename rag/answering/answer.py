"""One answer: prompt, generator, citations, check."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from rag.answering.citations import (
    CitationParser,
    Terms,
    check_support,
    parse_citations,
    without_markers,
)
from rag.answering.prompt import CountTokens, build_prompt, find_template
from rag.answering.templates import TEMPLATES, PromptTemplate
from rag.models.abstention import abstention, is_abstention
from rag.models.generator import Delta, Generator, Prompt
from rag.types import Answer, Message, Passage


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer's text; together they are `Answer.text`."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event. `used` are the passages that the generator was given; `unknown` are the
    ranks it cited that do not exist, and that were taken out of the text.
    """

    answer: Answer
    used: list[Passage]
    unknown: tuple[int, ...] = ()


AnswerEvent = TextDelta | Finished


class Answerer:
    """Answers questions from passages with one generator.

    `terms` is the bundle's analyzer, for the check of citations. `max_context_tokens` is the
    generator's window, prompt and answer together; `count_tokens` its tokenizer, if known.
    `support_threshold` is the share of a sentence's terms that its passages must hold.
    Raises InvalidRequest for a `template` that does not exist.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        terms: Terms,
        template: str = "default",
        templates: Mapping[str, PromptTemplate] = TEMPLATES,
        max_context_tokens: int = 8192,
        count_tokens: CountTokens | None = None,
        support_threshold: float = 0.6,
    ) -> None:
        find_template(template, templates)
        self._generator = generator
        self._terms = terms
        self._template = template
        self._templates = templates
        self._max_context_tokens = max_context_tokens
        self._count_tokens = count_tokens
        self._support_threshold = support_threshold

    async def stream(
        self,
        query: str,
        passages: Sequence[Passage],
        *,
        history: Sequence[Message] = (),
        max_tokens: int = 512,
        temperature: float = 0.0,
        deadline: float,
    ) -> AsyncIterator[AnswerEvent]:
        """Text as it comes, then exactly one Finished.

        Without passages it abstains at once, in the question's language, and asks no generator.
        `deadline` is a `time.monotonic()` moment. Raises InvalidRequest where no prompt can be
        built, and whatever GeneratorFailure the generator raises. Closing the iterator stops the
        generator.
        """
        if not passages:
            text = abstention(query)
            yield TextDelta(text)
            yield Finished(Answer(text, (), self._generator.name, abstained=True), [])
            return
        prompt, used = build_prompt(
            query,
            passages,
            template=self._template,
            templates=self._templates,
            history=history,
            max_context_tokens=self._max_context_tokens,
            count_tokens=self._count_tokens,
            max_tokens=max_tokens,
            temperature=temperature,
        )
        parser = CitationParser([passage.rank for passage in used])
        async with _deltas(self._generator, prompt, deadline) as deltas:
            async for delta in deltas:
                for piece in parser.feed(delta.text):
                    yield TextDelta(piece)
        for piece in parser.flush():
            yield TextDelta(piece)
        yield Finished(self._finish(parser.text, used), used, tuple(parser.unknown))

    async def answer(
        self,
        query: str,
        passages: Sequence[Passage],
        *,
        history: Sequence[Message] = (),
        max_tokens: int = 512,
        temperature: float = 0.0,
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
            deadline=deadline,
        )
        async for event in events:
            if isinstance(event, Finished):
                finished = event
        if finished is None:
            raise RuntimeError("an answer's stream ended without its last event")
        return finished.answer

    def _finish(self, text: str, used: Sequence[Passage]) -> Answer:
        if is_abstention(without_markers(text)):
            return Answer(text, (), self._generator.name, abstained=True)
        cited = parse_citations(text, [passage.rank for passage in used])
        citations = check_support(text, cited, used, self._terms, threshold=self._support_threshold)
        return Answer(text, tuple(citations), self._generator.name)


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

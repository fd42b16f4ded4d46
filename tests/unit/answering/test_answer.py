from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import pytest

from rag.answering.answer import Answerer, Finished, TextDelta, Usage
from rag.answering.support import Support
from rag.errors import GeneratorUnavailable, InvalidRequest
from rag.models.abstention import ABSTENTIONS, is_abstention, question_language
from rag.models.extractive import ExtractiveGenerator
from rag.models.generator import Delta, Finish, Prompt
from rag.types import Chunk, Passage


def words(text: str) -> list[str]:
    return [w.lower() for w in re.findall(r"[^\W_]+", text)]


def passage(rank: int, text: str) -> Passage:
    return Passage(rank, f"{rank:032x}", Chunk("d", "u", "Pumps", text, 0, len(text)), 1.0)


PASSAGES = [
    passage(1, "The pump stops at 40 °C. It restarts by itself after ten minutes."),
    passage(2, "펌프는 40도에서 멈춥니다. 십 분 뒤에 스스로 다시 켜집니다."),
]


class Scripted:
    """An endpoint's part: says what it was given, piece by piece, and records its end."""

    name = "scripted"

    def __init__(self, pieces: Sequence[str | Exception]) -> None:
        self.pieces = pieces
        self.prompts: list[Prompt] = []
        self.closed = 0

    async def stream(self, prompt: Prompt, *, deadline: float) -> AsyncIterator[Delta]:
        self.prompts.append(prompt)
        try:
            for piece in self.pieces:
                if isinstance(piece, Exception):
                    raise piece
                yield Delta(piece)
        finally:
            self.closed += 1

    async def aclose(self) -> None:
        pass


def deadline() -> float:
    return time.monotonic() + 30


def run(generator: object, query: str, passages: Sequence[Passage]) -> tuple[str, Finished]:
    async def collect() -> tuple[str, Finished]:
        answerer = Answerer(generator, support=Support(words))  # type: ignore[arg-type]
        events = [e async for e in answerer.stream(query, passages, deadline=deadline())]
        assert [type(e) for e in events[:-1]] == [TextDelta] * (len(events) - 1)
        last = events[-1]
        assert isinstance(last, Finished)
        return "".join(e.text for e in events[:-1] if isinstance(e, TextDelta)), last

    return anyio.run(collect)


def test_the_deltas_are_the_answer_and_its_citations_are_checked() -> None:
    pieces = ["The pump stops ", "at 40 °C. [", "1] It explodes at 99 °C [2", "][7]."]
    text, finished = run(Scripted(pieces), "When does the pump stop?", PASSAGES)
    answer = finished.answer
    assert text == answer.text == "The pump stops at 40 °C. [1] It explodes at 99 °C [2]."
    assert [(c.passages, c.supported) for c in answer.citations] == [((1,), True), ((2,), False)]
    first = answer.citations[0]
    assert text[first.start : first.end] == "The pump stops at 40 °C."
    assert finished.unknown == (7,)
    assert finished.used == PASSAGES
    assert answer.generator == "scripted"
    assert not answer.abstained


@pytest.mark.parametrize(
    ("query", "language"), [("When does it stop?", "en"), ("언제 멈춥니까?", "ko")]
)
def test_without_passages_it_abstains_and_asks_nobody(query: str, language: str) -> None:
    generator = Scripted(["never"])
    text, finished = run(generator, query, [])
    assert text == finished.answer.text == ABSTENTIONS[language]  # type: ignore[index]
    assert finished.answer.abstained
    assert generator.prompts == []


@pytest.mark.parametrize(
    ("said", "abstained"),
    [
        ("The indexed documents do not answer this question.", True),
        ("the indexed documents do not answer this question [1]", True),
        ("색인된 문서에는 이 질문에 대한 답이 없습니다.", True),
        ("The pump stops.", False),
        ("The indexed documents do not answer this question. But the pump stops. [1]", False),
    ],
)
def test_an_endpoint_abstains_with_the_agreed_sentence(said: str, abstained: bool) -> None:
    _, finished = run(Scripted([said]), "When?", PASSAGES)
    assert finished.answer.abstained is abstained
    assert not (abstained and finished.answer.citations)


def test_the_extractive_generator_answers_and_abstains_through_the_same_door() -> None:
    generator = ExtractiveGenerator(words)
    text, finished = run(generator, "When does the pump stop?", PASSAGES)
    assert "40 °C. [1]" in text
    assert finished.answer.citations[0].supported is True
    _, finished = run(generator, "Who painted the Mona Lisa?", PASSAGES)
    assert finished.answer.abstained


def test_a_failure_passes_through_and_the_generator_is_closed() -> None:
    generator = Scripted(["The pump ", GeneratorUnavailable("gone")])

    async def ask() -> None:
        await Answerer(generator, support=Support(words)).answer(
            "When?", PASSAGES, deadline=deadline()
        )

    with pytest.raises(GeneratorUnavailable):
        anyio.run(ask)
    assert generator.closed == 1


def test_closing_the_answer_closes_the_generator_at_once() -> None:
    generator = Scripted(["one "] * 100)

    async def ask() -> int:
        events = Answerer(generator, support=Support(words)).stream(
            "When?", PASSAGES, deadline=deadline()
        )
        async for _ in events:
            break
        await events.aclose()  # type: ignore[attr-defined]
        return generator.closed

    assert anyio.run(ask) == 1


def test_an_unknown_template_is_refused_at_once() -> None:
    with pytest.raises(InvalidRequest, match="nope"):
        Answerer(Scripted([]), support=Support(words), template="nope")


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("What is the limit?", "en"),
        ("한도는 얼마인가요?", "ko"),
        ("Kubernetes readiness probe timeout 기본값은?", "ko"),
        ("What does 김치 mean?", "en"),
        ("What is 떡볶이?", "en"),
        ("vLLM gpu-memory-utilization 기본값", "ko"),
        ("42?", "en"),
        ("", "en"),
    ],
)
def test_the_language_of_a_question(question: str, language: str) -> None:
    assert question_language(question) == language


def test_only_the_agreed_sentences_are_abstentions() -> None:
    assert all(is_abstention(sentence) for sentence in ABSTENTIONS.values())
    assert not is_abstention("")


PIECES = ["The pump ", "stops at 40 °C. [1] It explodes", " at 99 °C. [1]\n\nBananas are yellow. "]
PIECES += ["It restarts by itself after ten minutes."]


@pytest.mark.parametrize("cuts", [1, 5, 1000])
def test_unsupported_sentences_are_told_or_left_out(cuts: int) -> None:
    whole = "".join(PIECES)
    pieces = [whole[i : i + cuts] for i in range(0, len(whole), cuts)]

    async def ask(unsupported: Any) -> tuple[str, Finished]:
        answerer = Answerer(Scripted(pieces), support=Support(words), unsupported=unsupported)
        events = [e async for e in answerer.stream("When?", PASSAGES, deadline=deadline())]
        last = events[-1]
        assert isinstance(last, Finished)
        return "".join(e.text for e in events[:-1] if isinstance(e, TextDelta)), last

    text, finished = anyio.run(ask, "flag")
    assert text == finished.answer.text == whole
    said = [(c.passages, c.supported) for c in finished.answer.citations]
    assert said == [((1,), True), ((1,), False), ((), False), ((), True)]
    text, finished = anyio.run(ask, "drop")
    assert text == finished.answer.text
    assert text == "The pump stops at 40 °C. [1] It restarts by itself after ten minutes."
    spans = [text[c.start : c.end] for c in finished.answer.citations]
    assert spans == ["The pump stops at 40 °C.", "It restarts by itself after ten minutes."]
    assert all(c.supported for c in finished.answer.citations)
    assert finished.dropped == 2


def test_where_all_is_dropped_the_answer_is_that_there_is_none() -> None:
    async def ask(pieces: list[str]) -> Finished:
        answerer = Answerer(Scripted(pieces), support=Support(words), unsupported="drop")
        events = [e async for e in answerer.stream("언제?", PASSAGES, deadline=deadline())]
        assert isinstance(events[-1], Finished)
        return events[-1]

    for pieces in (["바나나는 노랗다. [2]"], [ABSTENTIONS["ko"]]):
        answer = anyio.run(ask, pieces).answer
        assert answer.text == ABSTENTIONS["ko"]
        assert answer.abstained
        assert answer.citations == ()


@pytest.mark.parametrize(("score", "asked"), [(0.19, 0), (0.2, 1), (None, 1)])
def test_it_abstains_below_the_score_and_asks_nobody(score: float | None, asked: int) -> None:
    generator = Scripted(["The pump stops at 40 °C. [1]"])

    async def ask() -> Finished:
        answerer = Answerer(generator, support=Support(words), abstain_below=0.2)
        stream = answerer.stream("펌프는?", PASSAGES, best_score=score, deadline=deadline())
        events = [e async for e in stream]
        assert isinstance(events[-1], Finished)
        return events[-1]

    finished = anyio.run(ask)
    assert len(generator.prompts) == asked
    assert finished.answer.abstained is (asked == 0)
    if not asked:
        assert finished.answer.text == ABSTENTIONS["ko"]


def test_requests_choose_among_the_templates_that_they_may() -> None:
    generator = Scripted(["a"])
    answerer = Answerer(generator, support=Support(words), allowed=["brief"])

    async def ask(template: str | None) -> None:
        stream = answerer.stream("When?", PASSAGES, template=template, deadline=deadline())
        async for _ in stream:
            pass

    anyio.run(ask, "brief")
    anyio.run(ask, "default")
    assert "one or two short sentences" in generator.prompts[0].messages[0].content
    assert "one or two short sentences" not in generator.prompts[1].messages[0].content
    for name in ("detailed", "{{ 7 * 7 }}", "../secret"):
        with pytest.raises(InvalidRequest, match=r"cannot be chosen here; there are: brief, def"):
            anyio.run(ask, name)


def test_fewer_passages_and_the_count_of_tokens() -> None:
    class Counted(Scripted):
        async def stream(self, prompt: Prompt, *, deadline: float) -> AsyncIterator[Delta]:
            yield Delta("one two")
            yield Delta("", Finish("length", 70, None))

    async def ask(generator: Any, **options: Any) -> Finished:
        answerer = Answerer(generator, support=Support(words), **options)
        stream = answerer.stream("When?", PASSAGES, max_passages=1, deadline=deadline())
        events = [e async for e in stream]
        assert isinstance(events[-1], Finished)
        return events[-1]

    finished = anyio.run(lambda: ask(Counted([]), count_tokens=lambda text: len(text.split())))
    assert [p.rank for p in finished.used] == [1]
    assert finished.reason == "length"
    assert finished.usage == Usage(70, 2, estimated=False)
    assert anyio.run(lambda: ask(Counted([]))).usage.estimated
    own = anyio.run(lambda: ask(Scripted(["one"]), count_tokens=lambda text: 1))
    assert own.usage == Usage(2, 1, estimated=False)

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Sequence

import anyio
import pytest

from rag.answering.answer import Answerer, Finished, TextDelta
from rag.errors import GeneratorUnavailable, InvalidRequest
from rag.models.abstention import ABSTENTIONS, is_abstention, question_language
from rag.models.extractive import ExtractiveGenerator
from rag.models.generator import Delta, Prompt
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
        answerer = Answerer(generator, terms=words)  # type: ignore[arg-type]
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
        await Answerer(generator, terms=words).answer("When?", PASSAGES, deadline=deadline())

    with pytest.raises(GeneratorUnavailable):
        anyio.run(ask)
    assert generator.closed == 1


def test_closing_the_answer_closes_the_generator_at_once() -> None:
    generator = Scripted(["one "] * 100)

    async def ask() -> int:
        events = Answerer(generator, terms=words).stream("When?", PASSAGES, deadline=deadline())
        async for _ in events:
            break
        await events.aclose()  # type: ignore[attr-defined]
        return generator.closed

    assert anyio.run(ask) == 1


def test_an_unknown_template_is_refused_at_once() -> None:
    with pytest.raises(InvalidRequest, match="nope"):
        Answerer(Scripted([]), terms=words, template="nope")


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

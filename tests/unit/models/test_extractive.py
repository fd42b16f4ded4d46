from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import numpy as np
import pytest

from rag.answering.citations import parse_citations
from rag.index.analyzer import make_analyzer
from rag.models.abstention import ABSTENTIONS, is_abstention
from rag.models.extractive import ExtractiveGenerator, answer_pieces
from rag.models.generator import Prompt
from rag.models.passage_units import UnitKind, split_units
from rag.models.question import content_terms, missing_names
from rag.models.selection import Selection, SelectionOptions, select
from rag.types import Chunk, Passage

Terms = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def terms() -> Terms:
    return make_analyzer("auto").terms


def passage(rank: int, text: str, **fields: Any) -> Passage:
    chunk = Chunk("doc", "file:doc", fields.pop("title", "Guide"), text, 0, len(text), **fields)
    return Passage(rank, f"{rank:032x}", chunk, 1.0 / rank)


PUMP = passage(
    1,
    "The pump house was built in 1998. It has two halls.\n\n"
    "The pump stops by itself at 40 °C. It starts again after ten minutes.\n\n"
    "Visitors wear helmets. The canteen is open until six.",
    lang="en",
)
OTHER = passage(2, "Helmets are kept in hall 2. Ask at the gate for one of your size.", lang="en")
펌프 = passage(
    3,
    "펌프실은 1998년에 지었다. 방이 둘 있다.\n\n"
    "펌프는 온도가 40도를 넘으면 저절로 멈춘다. 십 분이 지나면 다시 켜진다.\n\n"
    "방문객은 안전모를 쓴다.",
    lang="ko",
)


def answer(question: str, passages: Sequence[Passage], terms: Terms, **options: Any) -> str:
    selection = select(question, passages, terms=terms, options=SelectionOptions(**options))
    return "".join(answer_pieces(question, selection))


def test_it_quotes_the_sentence_that_answers_and_what_goes_on_from_it(terms: Terms) -> None:
    text = answer("At which temperature does the pump stop?", [OTHER, PUMP], terms)
    assert text == ("The pump stops by itself at 40 °C. [1] It starts again after ten minutes. [1]")


def test_it_answers_in_korean_by_morphemes(terms: Terms) -> None:
    text = answer("펌프가 멈추는 온도는 몇 도인가요?", [PUMP, OTHER, 펌프], terms)
    assert text == (
        "펌프는 온도가 40도를 넘으면 저절로 멈춘다. [3] 십 분이 지나면 다시 켜진다. [3]"
    )


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("What is the capital of Mongolia?", "en"),
        ("How do I bake sourdough bread?", "en"),
        ("김치찌개는 어떻게 끓이나요?", "ko"),
        ("몽골의 수도는 어디인가요?", "ko"),
    ],
)
def test_it_abstains_in_the_language_of_the_question(
    question: str, language: str, terms: Terms
) -> None:
    text = answer(question, [PUMP, OTHER, 펌프], terms)
    assert text == ABSTENTIONS[language]  # type: ignore[index]


def test_without_passages_or_words_it_abstains(terms: Terms) -> None:
    assert is_abstention(answer("When does the pump stop?", [], terms))
    assert is_abstention(answer("???", [PUMP], terms))
    assert is_abstention(answer("When does the pump stop?", [passage(1, "\n \n")], terms))


@pytest.mark.parametrize(
    ("question", "missing"),
    [
        ("Why does pump INC-127 stop at 40 °C?", ["INC-127"]),
        ("When does the pump in Frankfurt stop?", ["Frankfurt"]),
        ("펌프 2.7 판은 온도가 몇 도일 때 멈추나요?", ["2.7"]),
        ("Does the pump stop within 30s at 40-degree water?", []),
        ("When does the Pump stop?", []),
        ("Visitors: do they wear helmets?", []),
    ],
)
def test_a_name_that_no_passage_mentions_is_not_answered(
    question: str, missing: list[str], terms: Terms
) -> None:
    passages = [PUMP, 펌프]
    assert missing_names(question, [p.chunk.indexed_text for p in passages], terms) == missing
    selection = select(question, passages, terms=terms)
    assert selection.missing == tuple(missing)
    assert (not selection.runs) == bool(missing)
    loose = SelectionOptions(require_names=False)
    assert select(question, passages, terms=terms, options=loose).runs


def test_min_evidence_is_the_line_between_answer_and_abstention(terms: Terms) -> None:
    question = "When does the pump stop boiling potatoes?"
    found = select(question, [PUMP], terms=terms, options=SelectionOptions(min_evidence=0.0))
    assert found.best is not None
    evidence = found.best.evidence
    assert 0 < evidence < 1
    for line, answers in ((evidence, True), (evidence + 0.01, False)):
        options = SelectionOptions(min_evidence=line)
        assert bool(select(question, [PUMP], terms=terms, options=options).runs) is answers


def test_the_encoder_finds_what_words_do_not(terms: Terms) -> None:
    texts = passage(
        1, "The lorry is red.\n\nThe vehicle halts at dusk.\n\nA cat sleeps.", lang="en"
    )
    question = "When does the car stop?"

    def similarity(asked: str, pieces: Sequence[str]) -> list[float]:
        assert asked == question
        return [0.9 if "halts" in piece else 0.1 for piece in pieces]

    assert not select(question, [texts], terms=terms).runs
    selection = select(question, [texts], terms=terms, similarity=similarity)
    assert [q.unit.text for q in selection.runs[0]] == ["The vehicle halts at dusk."]


def test_an_english_encoder_is_not_asked_about_korean(terms: Terms) -> None:
    def similarity(asked: str, pieces: Sequence[str]) -> list[float]:
        raise AssertionError("asked about Korean")

    assert select("펌프는 언제 멈추나요?", [펌프], terms=terms, similarity=similarity).runs


def test_a_table_row_is_read_with_its_header(terms: Terms) -> None:
    table = passage(
        1,
        "| Pump | Limit | Hall |\n|---|---|---|\n| P7 | 40 °C | 2 |\n| P8 | 55 °C |  |\n",
        title="Pumps",
    )
    text = answer("What is the limit of pump P8?", [table], terms)
    assert "Pump: P8, Limit: 55 °C [1]" in text
    later = passage(1, "| P9 | 60 °C | 1 |", context="Pumps\n| Pump | Limit | Hall |")
    assert answer("limit of pump P9", [later], terms) == "Pump: P9, Limit: 60 °C, Hall: 1 [1]"


def test_a_procedure_is_quoted_with_all_of_its_steps(terms: Terms) -> None:
    steps = passage(
        1,
        "Restarting the pump:\n\n1. Close the valve.\n2. Press the green button.\n"
        "3. Wait until the lamp is on.\n\nThe canteen is closed.",
    )
    text = answer("How do I restart the pump?", [steps], terms)
    assert text == (
        "Restarting the pump: [1]\n1. Close the valve. [1]\n2. Press the green button. [1]\n"
        "3. Wait until the lamp is on. [1]"
    )


def test_a_sentence_that_refers_back_brings_what_it_refers_to(terms: Terms) -> None:
    text = passage(1, "The blue valve is in hall 2. It must never be opened under pressure.")
    got = answer("What must never be opened under pressure?", [text], terms, round_off_below=0)
    assert got.startswith("The blue valve is in hall 2. [1] It must never")


def test_code_is_shown_as_code(terms: Terms) -> None:
    text = passage(
        1, "Restart the pump service with:\n\nkubectl rollout restart deploy/pump\n\nDone."
    )
    got = answer("How do I restart the pump service?", [text], terms)
    assert "with: [1]\n`kubectl rollout restart deploy/pump` [1]" in got


def test_what_two_passages_say_is_said_once_and_cites_both(terms: Terms) -> None:
    same = [
        passage(1, "The pump stops by itself at 40 °C."),
        passage(2, "The pump stops by itself at 40 °C!\n\nThe canteen is closed."),
    ]
    text = answer("When does the pump stop?", same, terms)
    assert text == "The pump stops by itself at 40 °C. [1][2]"


def test_brackets_of_the_document_do_not_become_citations(terms: Terms) -> None:
    text = passage(1, "The pump stops at 40 °C [2]. See `x[3]` and [the manual](http://m/(4))[5].")
    got = answer("When does the pump stop?", [text], terms)
    assert got == "The pump stops at 40 °C. [1] See `x[3]` and the manual. [1]"
    assert {r for c in parse_citations(got, 9) for r in c.passages} == {1}


def test_passages_may_come_in_any_order_and_the_answer_is_the_same(terms: Terms) -> None:
    question = "When does the pump stop and where are the helmets?"
    assert answer(question, [PUMP, OTHER, 펌프], terms) == answer(
        question, [펌프, OTHER, PUMP], terms
    )


def test_units_cover_the_passage(terms: Terms) -> None:
    text = (
        "# Pumps\n\nThey cool **water** in\nthe hall.\n\n- one\n- two. Really\n\n"
        "```\nx = f(1)\ny = g(2)\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    )
    units = split_units(passage(1, text))
    assert [(u.kind, u.text) for u in units if u.text] == [
        (UnitKind.HEADING, "Pumps"),
        (UnitKind.PROSE, "They cool water in the hall."),
        (UnitKind.ITEM, "one"),
        (UnitKind.ITEM, "two."),
        (UnitKind.PROSE, "Really"),
        (UnitKind.CODE, "x = f(1)"),
        (UnitKind.CODE, "y = g(2)"),
        (UnitKind.ROW, "a: 1, b: 2"),
    ]


def test_lines_without_a_sentence_are_no_headings() -> None:
    units = split_units(passage(1, "Versions.\n\nCUDA Driver\n\n11.x 450.80\n\n12.x 525.60"))
    assert [u.kind for u in units[1:]] == [UnitKind.ROW] * 3


def test_function_words_do_not_count(terms: Terms) -> None:
    assert content_terms("What is the limit of the pump?", terms) == set(terms("limit pump"))
    assert "펌프" in content_terms("펌프는 언제 멈추나요?", terms)
    assert content_terms("what is it", terms) == set(terms("what is it"))


@pytest.mark.parametrize("unit", ["a ", "가 ", "| ", "[1]", "- x\n", "**", "x = 1\n", "A\n\n"])
def test_hostile_passages_end(unit: str, terms: Terms) -> None:
    hostile = passage(1, unit * (20_000 // len(unit)))
    answer("When does the pump stop?", [hostile, PUMP], terms)


def test_with_a_real_encoder_it_streams_sentence_by_sentence(
    terms: Terms, exported_encoder: Any
) -> None:
    from rag.models.load import load_embedder

    embedder = load_embedder(exported_encoder, threads=1)
    generator = ExtractiveGenerator(terms, embedder.embed_passages, embedder.embed_queries)

    async def ask(question: str) -> list[str]:
        prompt = Prompt(question, [PUMP, OTHER], [])
        stream = generator.stream(prompt, deadline=time.monotonic() + 60)
        return [delta.text async for delta in stream]

    pieces = anyio.run(ask, "When does the pump switch itself off?")
    assert len(pieces) >= 2
    assert pieces[0] == "The pump stops by itself at 40 °C. [1]"
    assert all(re.search(r"\[1\]$", piece) for piece in pieces)
    assert is_abstention("".join(anyio.run(ask, "Who painted the Mona Lisa?")))


def test_selection_is_nothing_but_its_input(terms: Terms) -> None:
    def similarity(asked: str, pieces: Sequence[str]) -> list[float]:
        return [float(np.cos(len(piece))) for piece in pieces]

    runs: list[Selection] = [
        select("When does the pump stop?", [PUMP, OTHER], terms=terms, similarity=similarity)
        for _ in range(2)
    ]
    assert runs[0] == runs[1]

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.answering.citations import CitationParser, parse_citations


def clean(answer: str, ranks: int = 3, *, step: int = 10_000) -> tuple[str, list[int]]:
    parser = CitationParser(ranks)
    pieces = []
    for at in range(0, len(answer), step):
        pieces += parser.feed(answer[at : at + step])
    pieces += parser.flush()
    assert all(pieces)
    assert "".join(pieces) == parser.text
    return parser.text, parser.unknown


def cited(answer: str, ranks: int = 3) -> list[tuple[str, tuple[int, ...]]]:
    return [(answer[c.start : c.end], c.passages) for c in parse_citations(answer, ranks)]


@pytest.mark.parametrize(
    ("answer", "text", "unknown"),
    [
        ("It runs [1].", "It runs [1].", []),
        ("It runs [9].", "It runs.", [9]),
        ("It runs [1, 9].", "It runs [1].", [9]),
        ("It runs [1][2,3].", "It runs [1][2, 3].", []),
        ("It runs [1-3].", "It runs [1, 2, 3].", []),
        ("It runs [2–7].", "It runs [2, 3].", [4, 5, 6, 7]),
        ("멈춥니다 【２】.", "멈춥니다 [2].", []),
        ("멈춥니다［1、3］.", "멈춥니다[1, 3].", []),
        ("In [2024] and [a] and [0].", "In [2024] and [a] and.", [0]),
        ("Use `x[7]` here [7].", "Use `x[7]` here.", [7]),
        ("```\nx[7]\n```\nDone [8]", "```\nx[7]\n```\nDone", [8]),
        ("A stray ` tick.\nThen [8].", "A stray ` tick.\nThen.", [8]),
        ("Open [1", "Open [1", []),
    ],
)
def test_markers_are_cleaned(answer: str, text: str, unknown: list[int]) -> None:
    assert clean(answer) == (text, unknown)
    assert clean(answer, step=1) == (text, unknown)


def test_text_is_held_back_only_where_a_marker_may_begin() -> None:
    parser = CitationParser(2)
    assert parser.feed("Water boils") == ["Water boils"]
    assert parser.feed(" at 100 °C [") == [" at 100 °C"]
    assert parser.feed("1") == []
    assert parser.feed("].") == [" [1]."]
    assert parser.feed(" See [the") == [" See [the"]
    assert parser.flush() == []


ANSWERS = st.text(alphabet="a가 .\n\t[]［］【】0123456789,-–`", max_size=60)


@given(ANSWERS, st.lists(st.integers(1, 7), min_size=1, max_size=40))
def test_the_text_does_not_depend_on_how_it_is_cut(answer: str, steps: list[int]) -> None:
    parser = CitationParser(3)
    at = turn = 0
    while at < len(answer):
        step = steps[turn % len(steps)]
        parser.feed(answer[at : at + step])
        at, turn = at + step, turn + 1
    parser.flush()
    assert (parser.text, parser.unknown) == clean(answer)
    outside_code = re.sub(r"(`{3,}).*?(?:\1|\Z)|`[^`\n]*`", "", parser.text, flags=re.DOTALL)
    if "`" not in outside_code:
        assert not re.search(r"\[[4-9]\]", outside_code)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("It runs. [1] It stops. [2][3]", [("It runs.", (1,)), ("It stops.", (2, 3))]),
        ("It runs [1]. It stops [2, 3].", [("It runs [1].", (1,)), ("It stops [2, 3].", (2, 3))]),
        ("First this [1] and then that [2].", [("First this [1] and then that [2].", (1, 2))]),
        ("No citation here. Here is one [1]", [("Here is one", (1,))]),
        ("40도에서 멈춥니다. [2] 다시 켜면 됩니다.[1]",
         [("40도에서 멈춥니다.", (2,)), ("다시 켜면 됩니다.", (1,))]),
        ("40도에서 멈춥니다[2].", [("40도에서 멈춥니다[2].", (2,))]),
        ("- one [1]\n- two [2]", [("- one", (1,)), ("- two", (2,))]),
        ("It runs.\n[2]", [("It runs.", (2,))]),
        ("[1] says that it runs.", [("says that it runs.", (1,))]),
        ("It runs. [1][1] [9]", [("It runs.", (1,))]),
        ("Use `x[1]` and wait.", []),
        ("", []),
    ],
)  # fmt: skip
def test_spans_hold_the_sentence(answer: str, expected: list[tuple[str, tuple[int, ...]]]) -> None:
    assert cited(answer) == expected


@given(ANSWERS)
def test_spans_are_inside_disjoint_and_ordered(answer: str) -> None:
    before = 0
    for citation in parse_citations(answer, 3):
        assert before <= citation.start < citation.end <= len(answer)
        assert citation.passages
        assert set(citation.passages) <= {1, 2, 3}
        before = citation.end


def test_sentences_that_cite_nothing_are_found_where_they_claim_something() -> None:
    answer = (
        "# Reset\n\nTwo steps:\n\n- Hold the button. [1]\n- Wait a minute.\n\n"
        "```\nreset --now\n```\n\n**Note**\n\nIt is green."
    )
    found = parse_citations(answer, 1, uncited=True)
    said = [(answer[c.start : c.end].lstrip("- "), c.passages) for c in found]
    assert said == [("Hold the button.", (1,)), ("Wait a minute.", ()), ("It is green.", ())]
    assert [c.passages for c in parse_citations(answer, 1)] == [(1,)]

from __future__ import annotations

import pytest

from rag.answering.sentence_gate import SentenceGate

ANSWER = (
    "First it boils. [1] Then 3.5 minutes pass [2]. It\nwhistles, e.g. loudly.\n\n"
    "- One thing. [1]\n- Another.\n\n```\nx. y.\n```\n\n물이 끓는다. [2] 끝났다."
)


def sentences(cuts: int) -> list[tuple[str, str]]:
    gate = SentenceGate([1, 2])
    parts = []
    for start in range(0, len(ANSWER), cuts):
        parts += gate.feed(ANSWER[start : start + cuts])
    parts += gate.flush()
    assert "".join(text for text, _ in parts) == ANSWER
    return [(text[c.start : c.end], text) for text, c in parts if c is not None]


@pytest.mark.parametrize("cuts", [1, 2, 7, 1000])
def test_however_the_text_is_cut_the_sentences_are_the_same(cuts: int) -> None:
    found = sentences(cuts)
    assert found == sentences(10_000)
    assert [said.lstrip("- ") for said, _ in found] == [
        "First it boils.", "Then 3.5 minutes pass [2].", "It\nwhistles, e.g. loudly.",
        "One thing.", "Another.", "물이 끓는다.", "끝났다.",
    ]  # fmt: skip
    assert found[0][1] == "First it boils. [1] "


def test_a_sentence_is_held_until_the_next_one_begins() -> None:
    gate = SentenceGate([1])
    assert gate.feed("It boils.") == []
    assert gate.feed(" [1]") == []
    [(text, _)] = gate.feed(" Then.")
    assert text == "It boils. [1] "


def test_text_without_a_claim_comes_at_the_end() -> None:
    gate = SentenceGate([1])
    assert gate.feed("```\nx.\n```\n") == []
    assert gate.flush() == [("```\nx.\n```\n", None)]
    assert gate.flush() == []

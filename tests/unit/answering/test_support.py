from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from rag.answering.citations import parse_citations
from rag.answering.support import Support
from rag.types import Chunk, Citation, Passage


def words(text: str) -> list[str]:
    return [w.lower() for w in re.findall(r"[^\W_]+", text)]


def passage(rank: int, text: str, context: str = "") -> Passage:
    return Passage(
        rank, f"{rank:032x}", Chunk("d", "u", "t", text, 0, len(text), context=context), 1
    )


class Letters:
    """Vectors of how often each letter stands in a text: near means spelt alike."""

    def __init__(self, readable: float = 1.0) -> None:
        self._readable = readable
        self.asked: list[str] = []

    def embed_passages(self, texts: Sequence[str]) -> Any:
        self.asked.extend(texts)
        counts = np.array([[t.lower().count(chr(97 + i)) for i in range(26)] for t in texts])
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)

    def readable(self, texts: Sequence[str]) -> Any:
        return np.full(len(texts), self._readable, dtype=np.float32)


def test_support_needs_the_terms_and_every_number() -> None:
    passages = [
        passage(1, "The pump stops at 40 °C and restarts by itself.", context="Pump P7"),
        passage(2, "온도가 40도를 넘으면 펌프가 멈춘다."),
    ]
    answer = (
        "The pump P7 stops at 40 °C. [1] The pump stops at 45 °C. [1] "
        "Bananas are rich in potassium. [1] 펌프가 멈춘다. [2] 펌프가 멈춘다. [1] ... [1]"
    )
    checked = Support(words).check(answer, parse_citations(answer, 2), passages)
    assert [c.supported for c in checked] == [True, False, False, True, False, None]


def test_all_cited_passages_count_together() -> None:
    passages = [passage(1, "alpha beta"), passage(2, "gamma delta")]
    answer = "alpha beta gamma delta epsilon"
    one, both = Citation(0, len(answer), (1,)), Citation(0, len(answer), (1, 2))
    checked = Support(words).check(answer, [one, both], passages)
    assert [c.supported for c in checked] == [False, True]


def test_a_sentence_that_cites_nothing_needs_one_passage_that_bears_it_out() -> None:
    passages = [passage(1, "alpha beta"), passage(2, "gamma delta")]
    for said, supported in (("alpha beta", True), ("alpha beta gamma delta epsilon", False)):
        [checked] = Support(words).check(said, [Citation(0, len(said), ())], passages)
        assert checked.supported is supported
        assert checked.passages == ()


def test_the_encoder_decides_where_terms_alone_do_not() -> None:
    passages = [passage(1, "A dog bites. The kettles were all boiled quickly.")]
    said = "The kettle boils so quick."
    cite = [Citation(0, len(said), (1,))]
    assert Support(words).check(said, cite, passages)[0].supported is False
    said = "The kettles boil so quick."
    near = Letters()
    assert Support(words, near).check(said, cite, passages)[0].supported is True  # type: ignore[arg-type]
    assert "A dog bites." in near.asked
    numbered = "The kettles boil so quick 9."
    cite = [Citation(0, len(numbered), (1,))]
    assert Support(words, near).check(numbered, cite, passages)[0].supported is False  # type: ignore[arg-type]


def test_an_encoder_that_cannot_read_the_sentence_is_not_asked() -> None:
    passages = [passage(1, "The kettles were all boiled quickly.")]
    said = "The kettles boil so quick."
    blind = Letters(readable=0.1)
    checked = Support(words, blind).check(said, [Citation(0, len(said), (1,))], passages)  # type: ignore[arg-type]
    assert checked[0].supported is False
    assert blind.asked == []

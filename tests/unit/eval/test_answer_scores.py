"""Scores of answers, against values computed by hand."""

from __future__ import annotations

import pytest

from eval.answer_scores import (
    citation_scores,
    contains_gold,
    exact_match,
    token_f1,
    unsupported_share,
)
from rag.types import Citation


@pytest.mark.parametrize(
    ("answer", "gold", "lang", "expected"),
    [
        ("The  Eiffel Tower!", "eiffel tower", "en", 1),
        ("An eiffel tower", "the Eiffel-tower", "en", 0),  # SQuAD joins what a hyphen parts
        ("«Paris»", "paris", "en", 1),
        ("Caf\u0065\u0301", "café", "en", 1),  # NFD against NFC
        ("세종 대왕.", "세종 대왕", "ko", 1),
        ("‘세종대왕’", "〈세종대왕〉", "ko", 1),
        ("세종대왕이다", "세종대왕", "ko", 0),
        ("the", "a", "ko", 0),  # articles are words where characters are compared
    ],
)
def test_exact_match(answer: str, gold: str, lang: str, expected: int) -> None:
    assert exact_match(answer, [gold], lang) == expected


@pytest.mark.parametrize(
    ("answer", "gold", "lang", "expected"),
    [
        # said {wait, thirty, seconds, then, kill} of 5, gold {thirty, seconds} of 2: P 2/5, R 2/2.
        ("Wait thirty seconds, then kill.", "thirty seconds", "en", 2 * 0.4 * 1.0 / 1.4),
        # A word counts as often as both have it: common {no: 1}; P 1/3, R 1/2.
        ("no no no", "no way", "en", 2 * (1 / 3) * 0.5 / (1 / 3 + 0.5)),
        ("left", "right", "en", 0.0),
        # 세종대왕이다 has 6 characters, 4 of them in common with the gold's 4: P 4/6, R 1.
        ("세종대왕이다", "세종대왕", "ko", 0.8),
        # Spaces do not count: 매년 15일 is 5 characters, 15일 is 3, all in common: P 3/5, R 1.
        ("매년 15일", "15일", "ko", 0.75),
        # The same texts by words have one word in common: P 1/2, R 1.
        ("매년 15일", "15일", "en", 2 / 3),
        ("", "x", "en", 0.0),
        ("the", "a", "en", 1.0),  # nothing against nothing
    ],
)
def test_f1(answer: str, gold: str, lang: str, expected: float) -> None:
    assert token_f1(answer, [gold], lang) == pytest.approx(expected)


def test_the_best_of_several_golds_counts() -> None:
    assert token_f1("thirty seconds", ["half a minute", "thirty seconds"], "en") == 1.0
    assert exact_match("30초", ["삼십 초", "30초"], "ko") == 1.0


@pytest.mark.parametrize(
    ("answer", "gold", "lang", "expected"),
    [
        ("It waits 30 seconds before the kill.", "30 seconds", "en", 1),
        ("It waits 130 seconds.", "30 seconds", "en", 0),
        ("In a catalogue.", "cat", "en", 0),
        ("연차는 매년 15 일을 받습니다.", "15일", "ko", 1),
        ("연차는 115일입니다.", "15일", "ko", 0),
        ("값은 0.35이다", "0.3", "ko", 0),
        ("", "x", "en", 0),
    ],
)
def test_contains_gold(answer: str, gold: str, lang: str, expected: int) -> None:
    assert contains_gold(answer, [gold], lang) == expected


def test_citations_against_graded_documents() -> None:
    judged = {"full": 2, "also": 2, "clue": 1, "none": 0}
    assert citation_scores(["full", "clue", "none", "other"], judged) == (0.5, 0.5)
    assert citation_scores(["full", "also", "full"], judged) == (1.0, 1.0)
    assert citation_scores([], judged) == (None, 0.0)
    assert citation_scores(["x"], {}) == (0.0, None)
    assert citation_scores(["none"], {"none": 0}) == (0.0, None)


def test_unsupported_sentences() -> None:
    answer = "It waits. [1] Then it kills. [2] 끝났습니다. And so on."
    ends = [answer.index(". [1]") + 1, answer.index(". [2]") + 1]
    first = Citation(0, ends[0], (1,), supported=True)
    second = Citation(answer.index("Then"), ends[1], (2,), supported=False)
    assert unsupported_share(answer, [first, second]) == 0.75
    unchecked = Citation(second.start, second.end, (2,), supported=None)
    assert unsupported_share(answer, [first, unchecked]) == 0.5
    assert unsupported_share("…", []) is None


def test_a_block_of_code_is_one_sentence() -> None:
    answer = "```\nkubectl get pods\nkubectl get nodes\n```\n[1]\nThat is all."
    cited = Citation(answer.index("```\n["), answer.index("\n[1]"), (1,), supported=True)
    assert unsupported_share(answer, [cited]) == 0.5

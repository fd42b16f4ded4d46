"""Lists of several queries as one: by hand, in order, without loss."""

from __future__ import annotations

import pytest

from rag.retrieval.merging import merge_rankings
from rag.types import Chunk, LegScore, Passage


def ranking(names: str, score: float = 0.5) -> list[Passage]:
    return [
        Passage(place, name, Chunk(name, "u", "제목", name, 0, 1), score, LegScore(place, score))
        for place, name in enumerate(names, start=1)
    ]


def names(passages: list[Passage]) -> str:
    return "".join(passage.chunk_id for passage in passages)


def test_scores_are_the_published_formula() -> None:
    made = merge_rankings([ranking("abc"), ranking("cb")], 10)
    assert names(made) == "cba"
    assert [p.rank for p in made] == [1, 2, 3]
    expected = [(61 / 63 + 1) / 2, 61 / 62, 0.5]
    assert [p.score for p in made] == pytest.approx(expected)


def test_first_everywhere_is_1() -> None:
    assert merge_rankings([ranking("a"), ranking("ab"), ranking("ac")], 1)[0].score == 1.0


def test_leg_scores_are_of_the_best_list() -> None:
    made = merge_rankings([ranking("ab", 0.1), ranking("ba", 0.9), ranking("cb", 0.3)], 3)
    legs = {p.chunk_id: p.dense for p in made}
    assert legs == {"a": LegScore(1, 0.1), "b": LegScore(1, 0.9), "c": LegScore(1, 0.3)}


def test_ties_go_to_the_earlier_list() -> None:
    assert names(merge_rankings([ranking("ab"), ranking("cd")], 4)) == "acbd"
    assert names(merge_rankings([ranking("cd"), ranking("ab")], 4)) == "cadb"


def test_a_smaller_top_k_is_a_prefix() -> None:
    lists = [ranking("abcdefgh"), ranking("hgxyab"), ranking("")]
    whole = merge_rankings(lists, 100)
    assert sorted(names(whole)) == sorted("abcdefghxy")
    for top_k in range(11):
        assert merge_rankings(lists, top_k) == whole[:top_k]


def test_nothing_found_is_nothing() -> None:
    assert merge_rankings([[], []], 5) == []

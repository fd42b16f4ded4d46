"""Scores the pieces of the passages by how well they answer a question."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rag.models.abstention import question_language
from rag.models.passage_units import Unit, UnitKind

Terms = Callable[[str], list[str]]
Similarity = Callable[[str, Sequence[str]], Sequence[float]]
"""(question, texts) -> the cosine of each text with the question."""

_STOP = (
    "what which who whom whose when where why how many much long often does do did is are was were "
    "be been being can could should would will may might must shall the a an of for to in on at "
    "by with from and or if it its this that these those there i we you my our your me us please "
    "tell explain describe give show mean means happen happens about into than then have has had "
    "s t vs so such any some also "
    "무엇 무어 뭐 뭘 무슨 어떤 어느 어떻게 어떠하 어떻 왜 언제 어디 어디서 누구 누가 얼마 얼마나 "
    "몇 하 하다 되 되다 있 있다 없 없다 이 이다 않 않다 주 주다 수 것 거 등 때 좀 그 저 및 위하 "
    "위하다 대하 대하다 관하 관하다 따르 따르다 알리 알리다 설명 인가 나요 까요 인가요 하나요 "
    "되나요 있나요 은 는 가 을 를 에 에서 의 로 으로 와 과 도 만"
)
_NUMERIC_QUESTION = re.compile(
    r"\bhow (?:many|much|long|often|large|big|fast|old|far|high)\b|\bwhen\b|\bwhat (?:year|date|"
    r"port|number|percentage|size|version|limit|timeout)|몇|얼마|언제|며칠|크기|개수|포트|버전|한도",
    re.IGNORECASE,
)
_PRIOR_STEP = 0.25  # how fast a passage's rank counts for less: 1, 0.8, 0.67, …
_KIND_WEIGHTS = {
    UnitKind.PROSE: 1.0,
    UnitKind.ITEM: 1.0,
    UnitKind.ROW: 1.0,
    UnitKind.CODE: 0.7,
    UnitKind.HEADING: 0.0,
}


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """`above_weight` is what a question's term counts that stands only in the headings or
    neighbours of a piece. The best `max_embedded` pieces by terms are compared by the encoder too,
    if the question's language is one of `similarity_languages`.
    """

    above_weight: float = 0.5
    max_embedded: int = 32
    similarity_languages: frozenset[str] = frozenset({"en"})


@dataclass(slots=True)
class ScoredUnit:
    """`coverage` is the share of the question's terms, by rarity, that the piece holds, from 0 to
    1; `similarity` is the cosine with the question, or None; `score` puts both together.
    """

    unit: Unit
    terms: frozenset[str]
    coverage: float
    score: float = 0.0
    similarity: float | None = None


def question_terms(question: str, terms: Terms) -> frozenset[str]:
    """The question's content terms; all of its terms if it has no content ones."""
    stop = {*_STOP.split(), *terms(_STOP)}
    every = frozenset(terms(question))
    return frozenset(term for term in every if term not in stop) or every


def score_units(
    question: str,
    units: Sequence[Unit],
    terms: Terms,
    similarity: Similarity | None,
    options: ScoreOptions,
) -> list[ScoredUnit]:
    """Every unit that may be quoted, best first; ties by passage rank, then place."""
    wanted = question_terms(question, terms)
    if not wanted or not units:
        return []
    own = [frozenset(terms(unit.text)) for unit in units]
    above = [frozenset(terms(unit.above)) for unit in units]
    weights = _rarity(wanted, own)
    total = sum(weights.values())

    def share(found: frozenset[str]) -> float:
        return sum(weights[term] for term in found & wanted) / total

    scored = []
    for at, unit in enumerate(units):
        near = above[at].union(*(own[i] for i in _neighbours(units, at))) - own[at]
        coverage = share(own[at]) + options.above_weight * share(near)
        scored.append(ScoredUnit(unit, own[at], min(1.0, coverage)))
    best_rank = min(unit.rank for unit in units)
    is_numeric = bool(_NUMERIC_QUESTION.search(question))
    for entry in scored:
        entry.score = _score(entry, best_rank, is_numeric, question)
    scored.sort(key=_order)
    language = question_language(question)
    if similarity is not None and language in options.similarity_languages:
        scored = scored[: options.max_embedded]
        cosines = similarity(question, [entry.unit.text for entry in scored])
        for entry, cosine in zip(scored, cosines, strict=True):
            entry.similarity = float(cosine)
            entry.score = _score(entry, best_rank, is_numeric, question)
        scored.sort(key=_order)
    return [entry for entry in scored if entry.score > 0]


def _order(entry: ScoredUnit) -> tuple[float, int, int]:
    return -round(entry.score, 6), entry.unit.rank, entry.unit.place


def _neighbours(units: Sequence[Unit], at: int) -> list[int]:
    return [
        i
        for i in (at - 1, at + 1)
        if 0 <= i < len(units)
        and units[i].rank == units[at].rank
        and not units[max(i, at)].starts_paragraph
        and units[i].kind is UnitKind.PROSE
    ]


def _rarity(wanted: frozenset[str], own: Sequence[frozenset[str]]) -> dict[str, float]:
    """log(1 + N / (df + 1)) over the units: a term of few units tells more (as BM25's idf)."""
    counts = Counter(term for found in own for term in found & wanted)
    return {term: math.log(1 + len(own) / (counts[term] + 1)) for term in wanted}


def _score(entry: ScoredUnit, best_rank: int, is_numeric: bool, question: str) -> float:
    unit = entry.unit
    prior = 1 / (1 + _PRIOR_STEP * (unit.rank - best_rank))
    if entry.similarity is None:
        score = 0.85 * entry.coverage + 0.15 * prior
    else:
        nearness = min(1.0, max(0.0, entry.similarity))
        score = 0.45 * entry.coverage + 0.45 * nearness + 0.1 * prior
    if is_numeric and any(n not in question for n in re.findall(r"\d+", unit.text)):
        score += 0.08
    if unit.text.endswith(("?", "？")):  # it asks the same, it does not answer
        score *= 0.5
    if len(entry.terms) < 3 and unit.kind is UnitKind.PROSE:
        score *= 0.8
    return score * _KIND_WEIGHTS[unit.kind]

"""Scores runs of neighbouring sentences by how well they answer a question."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rag.models.abstention import question_language
from rag.models.passage_units import Place, Unit, UnitKind
from rag.models.question import Terms, content_terms, is_numeric

Similarity = Callable[[str, Sequence[str]], Sequence[float]]
"""(question, texts) -> the cosine of each text with the question."""

_PRIOR = 0.1  # weight of the passage's rank in a score; the rest is for the words and the encoder
_PRIOR_STEP = 0.25  # how fast a later rank counts for less: 1, 0.8, 0.67, …
_NUMBER_BONUS = 0.03  # for a number where one is asked for
_LANGUAGE_BONUS = 0.03  # for the question's own language


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """`max_units` and `max_characters` bound a window. `above_weight` is what a question's term
    counts that stands only in the headings above a window. At most `max_embedded` units, those of
    the best windows by terms, are compared by the encoder, and only if the question's language is
    one of `similarity_languages`: those that the encoder was trained for.
    """

    max_units: int = 4
    max_characters: int = 500
    above_weight: float = 0.5
    max_embedded: int = 20
    similarity_languages: frozenset[str] = frozenset({"en"})


@dataclass(frozen=True, slots=True)
class Window:
    """The units `start` to `stop` (exclusive) of the passage of that rank.

    `coverage` is the share of the question's content terms that stand in the window or above it,
    from 0 to 1. `similarity` is the highest cosine of a unit with the question, or None where the
    encoder was not asked. `score` orders windows; it weights terms by their rarity, and knows the
    passage's rank. `found` are the question's terms in the window.
    """

    rank: int
    start: int
    stop: int
    score: float
    coverage: float
    similarity: float | None
    found: frozenset[str]

    @property
    def evidence(self) -> float:
        """How sure it is that this answers, from 0 to 1: coverage, or its mean with similarity."""
        if self.similarity is None:
            return self.coverage
        return (self.coverage + max(0.0, self.similarity)) / 2


class Scorer:
    """Scores the windows of one question over its passages (units by rank)."""

    def __init__(
        self,
        question: str,
        passages: dict[int, list[Unit]],
        terms: Terms,
        similarity: Similarity | None,
        options: ScoreOptions,
    ) -> None:
        self._options = options
        self._passages = passages
        self._best_rank = min(passages, default=1)
        self._wanted = content_terms(question, terms)
        units = [unit for of_passage in passages.values() for unit in of_passage]
        self.terms = {u.place: frozenset(terms(u.text)) for u in units}
        self._above = {u.above: frozenset(terms(u.above)) for u in units}
        self._weights = self._rarity()
        self._is_numeric = is_numeric(question)
        self._question_numbers = _numbers(question)
        self._cosines: dict[Place, float] | None = None
        self._language = question_language(question)
        if similarity is not None and self._language in options.similarity_languages:
            asked = self._promising(options.max_embedded)
            cosines = similarity(question, [unit.text for unit in asked]) if asked else []
            self._cosines = {u.place: float(c) for u, c in zip(asked, cosines, strict=True)}

    def windows(self) -> list[Window]:
        """The windows, best first; ties by length, rank and place. Where the encoder is asked,
        those of which it has seen every unit.
        """
        found = [window for units in self._passages.values() for window in self._of_passage(units)]
        return sorted(found, key=lambda w: (-round(w.score, 6), w.stop - w.start, w.rank, w.start))

    def _promising(self, limit: int) -> list[Unit]:
        """At most `limit` units, window by window in the order of their terms alone."""
        chosen: dict[Place, Unit] = {}
        for window in self.windows():
            for unit in self._passages[window.rank][window.start : window.stop]:
                if len(chosen) == limit:
                    return list(chosen.values())
                chosen.setdefault(unit.place, unit)
        return list(chosen.values())

    def _of_passage(self, units: Sequence[Unit]) -> Iterator[Window]:
        for start, unit in enumerate(units):
            if unit.kind is UnitKind.HEADING:
                continue
            length = 0
            for stop in range(start + 1, min(len(units), start + self._options.max_units) + 1):
                length += len(units[stop - 1].text)
                if stop - start > 1 and length > self._options.max_characters:
                    break
                if self._cosines is not None and units[stop - 1].place not in self._cosines:
                    break
                if units[stop - 1].kind is not UnitKind.HEADING:
                    yield self._window(units[start:stop])

    def _window(self, units: Sequence[Unit]) -> Window:
        first = units[0]
        places = [unit.place for unit in units]
        inside = frozenset().union(*(self.terms[place] for place in places)) & self._wanted
        above = (self._above[first.above] & self._wanted) - inside
        weighted = self._share(inside) + self._options.above_weight * self._share(above)
        coverage = len(inside | above) / len(self._wanted) if self._wanted else 0.0
        rank, start = first.place
        prior = 1 / (1 + _PRIOR_STEP * (rank - self._best_rank))
        similarity: float | None = None
        fit = min(1.0, weighted)
        if self._cosines is not None:
            cosines = [self._cosines[place] for place in places]
            similarity = max(cosines)
            # half the best sentence, half all of them: what is added should belong to it
            nearness = (similarity + sum(cosines) / len(cosines)) / 2
            fit = (fit + max(0.0, nearness)) / 2
        score = (1 - _PRIOR) * fit + _PRIOR * prior
        if self._is_numeric and any(_numbers(u.text) - self._question_numbers for u in units):
            score += _NUMBER_BONUS
        if all(unit.text.endswith(("?", "？")) for unit in units):  # asks, and does not answer
            score /= 2
        if first.lang == self._language:
            score += _LANGUAGE_BONUS
        return Window(rank, start, start + len(units), score, coverage, similarity, inside)

    def _share(self, found: frozenset[str]) -> float:
        total = sum(self._weights.values())
        return sum(self._weights[term] for term in found) / total if total else 0.0

    def _rarity(self) -> dict[str, float]:
        """log(1 + N / (df + 1)) over the units: a term of few units tells more (as BM25's idf)."""
        counts = Counter(term for found in self.terms.values() for term in found & self._wanted)
        return {t: math.log(1 + len(self.terms) / (counts[t] + 1)) for t in self._wanted}


def _numbers(text: str) -> frozenset[str]:
    digits = "".join(c if c.isdigit() else " " for c in text)
    return frozenset(digits.split())

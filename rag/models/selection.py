"""Chooses the sentences of the passages that answer a question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rag.models.passage_units import Unit, UnitKind, split_units
from rag.models.unit_scores import ScoredUnit, ScoreOptions, Similarity, Terms, score_units
from rag.types import Passage

_PROCEDURE = re.compile(
    r"\bhow (?:do|can|should|to|must)\b|\bsteps?\b|\bprocedure\b|어떻게|방법|절차|단계|순서",
    re.IGNORECASE,
)
_ANAPHORA = re.compile(
    r"(?:It|This|These|Those|They|That|He|She|Its|Their|However|Otherwise|Then|But|So|Instead|"
    r"Therefore|Both|In (?:this|that) case)\b|"
    r"(?:이는|이를|이때|이것|이런|이러한|그것|그러나|하지만|따라서|그래서|그러면|그런데|또한|또|단|다만)"
    r"(?:\s|,|은|을|이)"
)
_SAME = 0.8  # Jaccard index of terms from which two pieces say the same
_MOST_LINES = 8  # of a list or table that is quoted as a whole


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """What counts as an answer, and how much of it is given.

    At most `max_sentences` pieces and about `max_characters` characters; a piece after the first
    must score at least `relative` times the best. A question counts as answered when its best
    piece covers at least `min_coverage` of it (see `ScoredUnit.coverage`); where similarities are
    known, it must also reach `min_similarity`, and `sure_similarity` is enough without coverage.
    """

    max_sentences: int = 3
    max_characters: int = 700
    relative: float = 0.75
    min_coverage: float = 0.4
    min_similarity: float = 0.3
    sure_similarity: float = 0.75
    scores: ScoreOptions = field(default_factory=ScoreOptions)


@dataclass(frozen=True, slots=True)
class Selected:
    """One piece as the lines to show, and the ranks of the passages that hold it, best first."""

    lines: tuple[str, ...]
    ranks: tuple[int, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Selection:
    """The pieces in the order to show them, none for an abstention; and the best piece's
    coverage and similarity, which decided between the two.
    """

    pieces: tuple[Selected, ...]
    coverage: float
    similarity: float | None


def select(
    question: str,
    passages: Sequence[Passage],
    *,
    terms: Terms,
    similarity: Similarity | None = None,
    options: SelectionOptions | None = None,
) -> Selection:
    """The pieces of `passages` that answer `question`. Pure, if the functions given are."""
    options = options or SelectionOptions()
    by_rank = {p.rank: split_units(p) for p in sorted(passages, key=lambda p: p.rank)}
    units = [unit for of_passage in by_rank.values() for unit in of_passage]
    scored = score_units(question, units, terms, similarity, options.scores)
    if not scored:
        return Selection((), 0.0, None)
    best = scored[0]
    if not _answers(best, options):
        return Selection((), best.coverage, best.similarity)
    pieces = _choose(scored, by_rank, bool(_PROCEDURE.search(question)), options)
    return Selection(tuple(pieces), best.coverage, best.similarity)


def _answers(best: ScoredUnit, options: SelectionOptions) -> bool:
    if best.similarity is None:
        return best.coverage >= options.min_coverage
    if best.similarity >= options.sure_similarity:
        return True
    return best.coverage >= options.min_coverage and best.similarity >= options.min_similarity


@dataclass(slots=True)
class _Choice:
    """A chosen unit, the places it is shown with, and the ranks that say the same."""

    entry: ScoredUnit
    places: list[int]
    ranks: list[int]


def _choose(
    scored: Sequence[ScoredUnit],
    by_rank: dict[int, list[Unit]],
    is_procedure: bool,
    options: SelectionOptions,
) -> list[Selected]:
    choices: list[_Choice] = []
    shown: set[tuple[int, int]] = set()
    length = 0
    for entry in scored:
        if len(choices) == options.max_sentences:
            break
        if choices and entry.score < options.relative * scored[0].score:
            break
        unit = entry.unit
        if (unit.rank, unit.place) in shown:
            continue
        if same := next((c for c in choices if _says_the_same(c.entry, entry)), None):
            if unit.rank not in same.ranks:
                same.ranks.append(unit.rank)
            continue
        passage = by_rank[unit.rank]
        places = [
            p for p in _with_company(passage, unit, is_procedure) if (unit.rank, p) not in shown
        ]
        size = sum(len(passage[p].text) for p in places)
        if choices and length + size > options.max_characters:
            continue
        length += size
        shown.update((unit.rank, p) for p in places)
        choices.append(_Choice(entry, places, [unit.rank]))
    return _in_order(choices, by_rank)


def _says_the_same(one: ScoredUnit, other: ScoredUnit) -> bool:
    both = len(one.terms & other.terms)
    return both > 0 and both >= _SAME * len(one.terms | other.terms)


def _with_company(passage: Sequence[Unit], unit: Unit, is_procedure: bool) -> list[int]:
    """The places to show so that the unit can be understood: what it refers back to, what it
    announces, and for a step of a procedure the other steps.
    """
    at = unit.place
    if unit.leads_in and unit.kind is not UnitKind.ROW:
        return [at, *_run(passage, at + 1)]
    if unit.kind is UnitKind.ITEM:
        start = at
        while start > 0 and passage[start - 1].kind is UnitKind.ITEM:
            start -= 1
        lead = [start - 1] if start > 0 and passage[start - 1].text.endswith((":", "：")) else []
        if is_procedure and unit.is_numbered:
            return [*lead, *_run(passage, start)]
        return [*lead, at]
    if unit.kind is UnitKind.CODE and at > 0 and passage[at - 1].leads_in:
        return [at - 1, at]
    before = passage[at - 1] if at > 0 else None
    refers_back = unit.kind is UnitKind.PROSE and _ANAPHORA.match(unit.text)
    if refers_back and before is not None and before.kind is UnitKind.PROSE:
        return [at] if unit.starts_paragraph else [at - 1, at]
    return [at]


def _run(passage: Sequence[Unit], start: int) -> list[int]:
    """The list, table or code that begins at `start`, or the one sentence there."""
    if start >= len(passage):
        return []
    kind = passage[start].kind
    if kind in (UnitKind.PROSE, UnitKind.HEADING):
        return [start] if kind is UnitKind.PROSE else []
    end = start
    while end < len(passage) and passage[end].kind is kind and end - start < _MOST_LINES:
        end += 1
    return list(range(start, end))


def _in_order(choices: Sequence[_Choice], by_rank: dict[int, list[Unit]]) -> list[Selected]:
    """Passages by their best piece; within a passage, as the document has them."""
    first: dict[int, int] = {}
    for at, choice in enumerate(choices):
        first.setdefault(choice.entry.unit.rank, at)
    ordered = sorted(choices, key=lambda c: (first[c.entry.unit.rank], c.places[0]))
    return [
        Selected(_lines(by_rank[c.ranks[0]], c.places), tuple(c.ranks), c.entry.score)
        for c in ordered
    ]


def _lines(passage: Sequence[Unit], places: Sequence[int]) -> tuple[str, ...]:
    """The text of the units: prose in one line, the rest one line each."""
    units = [passage[place] for place in places]
    if len(units) == 2 and units[0].text.endswith((":", "：")) and units[1].kind is UnitKind.ITEM:
        return (f"{units[0].text} {units[1].text}",)
    lines: list[str] = []
    number = 0
    joinable = False
    for unit in units:
        is_prose = unit.kind is UnitKind.PROSE
        text = unit.text
        if unit.kind is UnitKind.CODE:
            text = f"```\n{text}\n```" if "\n" in text else f"`{text.strip('`')}`"
        elif not is_prose and len(units) > 1:
            number += 1
            text = f"{number}. {text}" if unit.is_numbered else f"- {text}"
        if is_prose and joinable:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
        joinable = is_prose and unit.is_closed
    return tuple(lines)

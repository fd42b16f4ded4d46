"""Chooses what to quote from the passages as the answer to a question.

The best run of neighbouring sentences is the core. It is rounded off with what follows or precedes
it in its paragraph, list or table, and one more run is added if another place answers more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rag.models.passage_units import Unit, UnitKind, split_units
from rag.models.question import Terms, is_procedure, missing_names
from rag.models.window_scores import ScoreOptions, Scorer, Similarity, Window
from rag.types import Passage

_ANAPHORA = re.compile(
    r"(?:It|This|These|Those|They|That|He|She|Its|Their|However|Otherwise|Then|But|So|Instead|"
    r"Therefore|Both|In (?:this|that) case)\b|"
    r"(?:이는|이를|이때|이것|이런|이러한|그것|그러나|하지만|따라서|그래서|그러면|그런데|또한|또|단|다만)"
    r"(?:\s|,|은|을|이)"
)
_SAME = 0.8  # Jaccard index of terms from which two sentences say the same
_TELLING = 4  # terms; that 'status: 500' stands elsewhere too means nothing
_LONG_LIST = 700  # characters up to which a list is quoted as a whole


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """What counts as an answer, and how much of it is given.

    Only the best `max_passages` passages are quoted.
    The question counts as answered when the best window's `evidence` (see `Window`) reaches
    `min_evidence`, and, with `require_names`, when every identifier and name in the question
    stands in some passage. A core shorter than `round_off_below` characters takes its neighbours
    along, up to `round_off_to`. A second window must score `relative` times the first, tell at
    least one more of the question's terms, and have no more than `second_characters`.
    """

    max_passages: int = 8
    min_evidence: float = 0.42
    require_names: bool = True
    round_off_below: int = 300
    round_off_to: int = 480
    relative: float = 0.9
    second_characters: int = 250
    scores: ScoreOptions = field(default_factory=ScoreOptions)


@dataclass(frozen=True, slots=True)
class Quoted:
    """One unit to show, and the ranks of the passages that say it, the quoted one first."""

    unit: Unit
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """The runs of units to quote, none for an abstention, and what decided between the two:
    the best window (None without any) and the question's names that no passage has.
    """

    runs: tuple[tuple[Quoted, ...], ...]
    best: Window | None
    missing: tuple[str, ...] = ()


def select(
    question: str,
    passages: Sequence[Passage],
    *,
    terms: Terms,
    similarity: Similarity | None = None,
    options: SelectionOptions | None = None,
) -> Selection:
    """What to quote from `passages` for `question`. Pure, if the functions given are."""
    options = options or SelectionOptions()
    ranked = sorted(passages, key=lambda p: p.rank)[: options.max_passages]
    by_rank = {passage.rank: split_units(passage) for passage in ranked}
    scorer = Scorer(question, by_rank, terms, similarity, options.scores)
    windows = scorer.windows()
    if not windows:
        return Selection((), None)
    best = windows[0]
    missing: list[str] = []
    if options.require_names:
        missing = missing_names(question, [p.chunk.indexed_text for p in passages], terms)
    if missing or best.evidence < options.min_evidence:
        return Selection((), best, tuple(missing))
    steps = is_procedure(question)
    spans = [_round_off(by_rank[best.rank], best, steps, options)]
    second = _second(windows, spans[0], by_rank, scorer, options)
    if second is not None:
        spans.append((second.rank, second.start, second.stop))
    return Selection(tuple(_quote(span, by_rank, scorer) for span in spans), best)


_Span = tuple[int, int, int]  # rank, start, stop


def _round_off(
    units: Sequence[Unit], window: Window, steps: bool, options: SelectionOptions
) -> _Span:
    """The window with what makes it readable, and short windows with what goes on from there."""
    start, stop = window.start, window.stop
    if stop < len(units) and units[stop - 1].leads_in and units[stop].kind is UnitKind.ITEM:
        stop += 1
    has_items = any(unit.kind is UnitKind.ITEM for unit in units[start:stop])
    if has_items and (steps or any(unit.leads_in for unit in units[start:stop])):
        start, stop = _whole_list(units, start, stop)
    if start > 0 and _needs_previous(units[start - 1], units[start]):
        start -= 1

    def fits(unit: Unit) -> bool:
        size = sum(len(u.text) for u in units[start:stop])
        return size < options.round_off_below and size + len(unit.text) <= options.round_off_to

    while stop < len(units) and fits(units[stop]) and _goes_on(units[stop - 1], units[stop]):
        stop += 1
    while start > 0 and fits(units[start - 1]) and _goes_on(units[start - 1], units[start]):
        start -= 1
    if start > 0 and _needs_previous(units[start - 1], units[start]):
        start -= 1
    return window.rank, start, stop


def _whole_list(units: Sequence[Unit], start: int, stop: int) -> tuple[int, int]:
    """The window with the rest of its list, if that is not long."""

    def fits(unit: Unit) -> bool:
        size = sum(len(u.text) for u in units[start:stop])
        return unit.is_of_list and size + len(unit.text) <= _LONG_LIST

    while stop < len(units) and fits(units[stop]):
        stop += 1
    while start > 0 and units[start].is_of_list and fits(units[start - 1]):
        start -= 1
    return start, stop


def _needs_previous(before: Unit, unit: Unit) -> bool:
    """Whether `unit` cannot be read without the one before it."""
    if before.kind is UnitKind.HEADING:
        return False
    if unit.kind in (UnitKind.ITEM, UnitKind.CODE):
        return before.leads_in
    refers_back = unit.kind is UnitKind.PROSE and bool(_ANAPHORA.match(unit.text))
    return refers_back and before.kind is UnitKind.PROSE


def _goes_on(before: Unit, unit: Unit) -> bool:
    """Whether `unit` belongs with the one before it."""
    if UnitKind.HEADING in (before.kind, unit.kind):
        return False
    if before.leads_in or UnitKind.CODE in (before.kind, unit.kind):
        return True
    if unit.kind is UnitKind.ITEM:  # another item is another thought
        return False
    return not unit.starts_paragraph


def _second(
    windows: Sequence[Window],
    first: _Span,
    by_rank: dict[int, list[Unit]],
    scorer: Scorer,
    options: SelectionOptions,
) -> Window | None:
    """The best other window that tells more and does not repeat the first."""
    rank, start, stop = first
    shown = by_rank[rank][start:stop]
    told = frozenset().union(*(scorer.terms[unit.place] for unit in shown))
    for window in windows:
        if window.score < options.relative * windows[0].score:
            return None
        if window.rank == rank and window.start < stop and start < window.stop:
            continue
        units = by_rank[window.rank][window.start : window.stop]
        if sum(len(unit.text) for unit in units) > options.second_characters:
            continue
        repeats = any(
            _is_same(scorer.terms[unit.place], scorer.terms[other.place])
            for unit in units
            for other in shown
        )
        if window.found - told and not repeats:
            return window
    return None


def _is_same(one: frozenset[str], other: frozenset[str]) -> bool:
    both = len(one & other)
    return both > 0 and both >= _SAME * len(one | other)


def _quote(span: _Span, by_rank: dict[int, list[Unit]], scorer: Scorer) -> tuple[Quoted, ...]:
    """The units of a span, each with the passages that hold it or nearly the same sentence."""
    rank, start, stop = span
    quoted: list[Quoted] = []
    seen: list[frozenset[str]] = []
    for unit in by_rank[rank][start:stop]:
        own = scorer.terms[unit.place]
        if any(_is_same(own, other) for other in seen) and unit.kind is UnitKind.PROSE:
            continue
        seen.append(own)
        also = [
            other
            for other, units in by_rank.items()
            if other != rank
            and len(own) >= _TELLING
            and any(_is_same(own, scorer.terms[u.place]) for u in units)
        ]
        quoted.append(Quoted(unit, (rank, *also)))
    return tuple(quoted)

"""Lines of a PDF to headings, paragraphs and lists, by spacing, indentation and type size."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import compress, pairwise
from typing import NamedTuple

from indexer.parsing.cleaning import unwrap
from indexer.parsing.pdf_lines import SOFT_HYPHEN, Line

_LARGER = 1.15  # a heading's size against the body's
_LOOSER = 1.3  # a paragraph's distance against that of its lines
_MAX_HEADING_CHARS = 200
_MAX_HEADING_LINES = 4
_BULLET = re.compile(r"[•◦○■□◆◇▪►▶※·*–—-][ \t]+(?=\S)")
_NUMBER = re.compile(r"(?:\(?\d{1,2}[.)]|[가-하][.)]|[①-⑳])\s")
_SENTENCE_END = re.compile(r"[.!?。！？:;…][\"'”’)\]]*$")
_HYPHENATED = re.compile(r"[^\W\d_][-\u2010]$")
_PUNCTUATION = ".,;:!?()[]\"'“”‘’"
_UNITS = frozenset("$€£₩%)")
_DASHES = frozenset("—–-")
_ENTRY = re.compile(r"\d[\d.]*\s.*\s\d{1,4}|.*…\s*\d{1,4}")  # of a table of contents
_HANGUL_EDGE = re.compile(r"[가-힣]")
# Endings and particles that never stand alone: a line that begins with one continues the word
# before it. So does a line after a lone syllable that is no word.
_PARTICLE = re.compile(
    r"[를는었았였겠습]|"
    r"(?:은|이|가|을|의|에|에서|에게|으로|로|와|과|도|만|까지|부터|처럼|보다|라고|며|다|다는|"
    r"한다|하는|하고|하게|된|될|들|들이|들은|들을|들의)(?:[\s.,]|$)"
)
_LONE_SYLLABLES = frozenset(
    "각간것곧곳과그꼭꽤끝나날남내너년누늘다달당더던돈된두둘뒤듯등딱땐때또말맨명몇못무물및밖반밤번별본분빛뿐새"
    "서선성세셋속손수순시신아안앞약양어억없엔여역열옆오온올와왜외우원월위이인일자잘장저전점제조좀주줄중즉지집"
    "참채책첫총층큰타탓터통팀편하한할해현후힘"
)


class Piece(NamedTuple):
    """What a run of lines turned out to be. `level` is 0 for text; `is_item` for a list item."""

    text: str
    page: int
    level: int = 0
    is_item: bool = False


def pieces(pages: Sequence[Sequence[Line]]) -> list[Piece]:
    """The pages' lines put together, in reading order."""
    lines = [line for page in pages for line in page]
    if not lines:
        return []
    return list(_Layout(lines).pieces(pages))


class _Layout:
    """What holds for the whole document: the body's type, its line distance, its words."""

    def __init__(self, lines: Sequence[Line]) -> None:
        chars: Counter[float] = Counter()
        bold: Counter[bool] = Counter()
        for line in lines:
            chars[line.size] += len(line.text)
            bold[line.bold] += len(line.text)
        self._body = max(chars, key=lambda size: (chars[size], -size))
        self._body_is_bold = bold[True] > bold[False]
        pitches = [p for a, b in pairwise(lines) if (p := _pitch(a, b)) and 0.7 < p < 3.0]
        self._pitch = statistics.median(pitches) if pitches else 1.2
        self._words = {word for line in lines for word in map(_bare, line.text.split())}
        self._levels: dict[float, int] = {}

    def pieces(self, pages: Sequence[Sequence[Line]]) -> Iterator[Piece]:
        runs = [run for page in pages for run in self._runs(page)]
        headings = [self._may_be_heading(run) for run in runs]
        sizes = {run[0].size for run in compress(runs, headings)}
        larger = sorted((size for size in sizes if size > self._body), reverse=True)
        for size in larger:
            close = next((s for s in self._levels if s <= size * 1.05), None)
            self._levels[size] = (
                self._levels[close] if close else len(set(self._levels.values())) + 1
            )
        for run, is_heading in zip(runs, headings, strict=True):
            if is_heading:
                rank = self._levels.get(run[0].size, len(set(self._levels.values())) + 1)
                yield Piece(self._join(run, run), run[0].page, level=min(6, rank))
            else:
                for paragraph in _paragraphs(run):
                    yield self._text(paragraph, run)

    def _runs(self, lines: Sequence[Line]) -> Iterator[list[Line]]:
        """Lines of one type that follow each other at an even distance."""
        run: list[Line] = []
        for line in lines:
            if run and not self._follows(run[-1], line):
                yield run
                run = []
            run.append(line)
        if run:
            yield run

    def _follows(self, above: Line, below: Line) -> bool:
        if _same_row(above, below):
            return True
        if abs(above.size - below.size) > 0.1 * max(above.size, below.size):
            return False
        if above.bold != below.bold and not self._body_is_bold:
            return False
        pitch = _pitch(above, below)
        if pitch is None:  # a jump to elsewhere
            return False
        overlaps = below.left < above.right and above.left < below.right
        return overlaps and pitch <= max(_LOOSER * self._pitch, 1.3)

    def _may_be_heading(self, run: Sequence[Line]) -> bool:
        text = " ".join(line.text for line in run).replace(SOFT_HYPHEN, "")
        if len(run) > _MAX_HEADING_LINES or len(text) > _MAX_HEADING_CHARS:
            return False
        if sum(map(str.isalpha, text)) < max(2, 0.4 * len(text.replace(" ", ""))):
            return False
        if _BULLET.match(text) or _ENTRY.fullmatch(text):
            return False
        if run[0].size >= _LARGER * self._body:
            return True
        stands_out = run[0].bold and not self._body_is_bold and run[0].size >= 0.95 * self._body
        if _ends_in_figures(text):
            return False
        return stands_out and len(run) <= 2 and not re.search(r"[.,;:…]$", text)

    def _text(self, lines: Sequence[Line], run: Sequence[Line]) -> Piece:
        text = self._join(lines, run)
        if mark := _BULLET.match(text):
            return Piece(text[mark.end() :], lines[0].page, is_item=True)
        return Piece(text, lines[0].page)

    def _join(self, lines: Sequence[Line], run: Sequence[Line]) -> str:
        """Full lines flow on; a short line was broken on purpose (verse, table, address)."""
        right = max(line.right for line in run)
        width = right - min(line.left for line in run)
        text = lines[0].text
        for above, below in pairwise(lines):
            if text.endswith(SOFT_HYPHEN):
                text = self._rejoin(text[:-1], below.text)
            elif _same_row(above, below):
                gap = " " if below.left - above.right > 0.15 * above.size else ""
                text = f"{text}{gap}{below.text}"
            elif (_is_row(above.text) and _is_row(below.text)) or above.right < right - 0.2 * width:
                text = f"{text}\n{below.text}"
            else:
                text = self._continue(text, below.text)
        return text

    def _continue(self, text: str, line: str) -> str:
        if _HYPHENATED.search(text) and line[0].islower():
            return self._rejoin(text[:-1], line)
        if _HANGUL_EDGE.match(text[-1:]) and _HANGUL_EDGE.match(line):
            return text + line if self._is_cut(text, line) else f"{text} {line}"
        return unwrap(f"{text}\n{line}")

    def _rejoin(self, text: str, line: str) -> str:
        """A word cut by a hyphen at the line's end: gone, unless the text has the compound."""
        compound = f"{text.rsplit(maxsplit=1)[-1]}-{line.split(maxsplit=1)[0]}"
        return f"{text}-{line}" if _bare(compound) in self._words else text + line

    def _is_cut(self, text: str, line: str) -> bool:
        """Whether a Korean line ended within a word: the text's other words tell, or a particle."""
        last, first = text.rsplit(maxsplit=1)[-1], line.split(maxsplit=1)[0]
        if last + first in self._words:
            return True
        if len(last) == 1 and last not in _LONE_SYLLABLES:
            return True
        return first != "이" and _PARTICLE.match(line) is not None


def _paragraphs(run: Sequence[Line]) -> Iterator[list[Line]]:
    """A run split at bullets, at first-line indents, and after short lines that end a sentence."""
    left, right = min(line.left for line in run), max(line.right for line in run)
    paragraph: list[Line] = []
    for line in run:
        if paragraph and _starts_paragraph(paragraph, line, left, right):
            yield paragraph
            paragraph = []
        paragraph.append(line)
    yield paragraph


def _starts_paragraph(paragraph: Sequence[Line], line: Line, left: float, right: float) -> bool:
    above = paragraph[-1]
    if above.text.endswith(SOFT_HYPHEN) or _same_row(above, line):
        return False
    if _BULLET.match(line.text):
        return True
    ended = _SENTENCE_END.search(above.text) is not None
    short = above.right < right - 0.1 * (right - left)
    if _NUMBER.match(line.text) and (ended or short):
        return True
    indented = above.left + 0.8 * line.size < line.left < above.left + 5 * line.size
    hanging = _BULLET.match(paragraph[0].text) or _NUMBER.match(paragraph[0].text)
    if indented and ended and not hanging:
        return True
    return ended and short


def _bare(word: str) -> str:
    return word.strip(_PUNCTUATION)


def _is_row(text: str) -> bool:
    """A row of a table without rules: it ends in two figures, or is mostly figures."""
    figures = _figures(text)
    return _ends_in_figures(text) or (len(figures) > 1 and sum(figures) * 5 >= 2 * len(figures))


def _ends_in_figures(text: str) -> bool:
    figures = _figures(text)
    return len(figures) > 2 and all(figures[-2:])


def _figures(text: str) -> list[bool]:
    """For each word but currency and percent signs: whether it is a figure, or a dash for none."""
    cells = (cell for cell in text.split() if cell not in _UNITS)
    return [
        cell in _DASHES or (not cell.isalpha() and any(map(str.isdigit, cell))) for cell in cells
    ]


def _same_row(above: Line, below: Line) -> bool:
    size = max(above.size, below.size)
    return (
        above.page == below.page
        and abs(above.baseline - below.baseline) < 0.5 * size
        and below.left > above.right - 0.5 * size
    )


def _pitch(above: Line, below: Line) -> float | None:
    """The distance of two lines in units of their size; None unless the second is lower."""
    size = max(above.size, below.size, 0.1)
    distance = (below.baseline - above.baseline) / size
    return distance if above.page == below.page and distance > 0.5 else None

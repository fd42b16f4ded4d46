"""Reads `[n]` citations out of an answer: while it streams, and as spans.

A marker is `[1]`, `[1, 2]` or `[1-3]`, also in `［］` or `【】`; several may follow each other.
What stands in back-ticks is code, never a marker.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from rag.sentences import split_sentences
from rag.types import Citation

_NUMBERS = r"\s?\d{1,3}(?:\s?[,，、;\-–—~]\s?\d{1,3}){0,15}\s?"
_TOKEN = re.compile(rf"(?P<ticks>`+)|(?P<line>\n)|[ \t]?[\[［【](?P<numbers>{_NUMBERS})[\]］】]")
# The end of a text that may still become a token when more arrives.
_PENDING = re.compile(r"(?:`+|[ \t]?[\[［【][\d\s,，、;\-–—~]{0,110}|[ \t])\Z")
_LONGEST = 128
_MARKER = re.compile(rf"[\[［【]{_NUMBERS}[\]］】]")
_CODE = re.compile(r"(`{3,}).*?(?:\1|\Z)|`[^`\n]*`", re.DOTALL)
_HEADING = re.compile(r"#{1,6}\s|\*\*[^*]+\*\*:?$")


def _ranks(ranks: int | Collection[int]) -> frozenset[int]:
    return frozenset(range(1, ranks + 1) if isinstance(ranks, int) else ranks)


class CitationParser:
    """Cleans the markers of a streaming answer, and holds back only what may become one.

    `ranks` is how many passages there are, or their ranks. Markers come out in the one form `[1]`
    or `[1, 3]`; ranks that do not exist are taken out, with the space before a marker that
    is left empty, and are collected in `unknown`. However an answer is cut into deltas, the text
    that comes out is the same; `text` is all of it so far.
    """

    def __init__(self, ranks: int | Collection[int]) -> None:
        self._ranks = _ranks(ranks)
        self._buffer = ""
        self._ticks = 0  # length of the open run of back-ticks, 0 outside code
        self._pieces: list[str] = []
        self.unknown: list[int] = []

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def feed(self, delta: str) -> list[str]:
        """The pieces of text that can be shown now; none of them is empty."""
        self._buffer += delta
        tail = max(0, len(self._buffer) - _LONGEST)
        pending = _PENDING.search(self._buffer, tail)
        return self._take(pending.start() if pending else len(self._buffer))

    def flush(self) -> list[str]:
        """What was held back, at the end of the answer."""
        return self._take(len(self._buffer))

    def _take(self, end: int) -> list[str]:
        ready, self._buffer = self._buffer[:end], self._buffer[end:]
        pieces, at = [], 0
        for match in _TOKEN.finditer(ready):
            pieces.append(ready[at : match.start()])
            pieces.append(self._token(match))
            at = match.end()
        pieces.append(ready[at:])
        text = "".join(pieces)
        if not text:
            return []
        self._pieces.append(text)
        return [text]

    def _token(self, match: re.Match[str]) -> str:
        token = match.group()
        if match["ticks"]:
            length = len(token)
            if not self._ticks:
                self._ticks = length
            elif length == self._ticks or length > self._ticks >= 3:
                self._ticks = 0
        elif match["line"]:
            if self._ticks < 3:  # inline code ends with its line
                self._ticks = 0
        elif not self._ticks:
            return self._marker(token, match["numbers"])
        return token

    def _marker(self, token: str, numbers: str) -> str:
        named = _expand(numbers)
        self.unknown.extend(n for n in named if n not in self._ranks)
        known = [n for n in named if n in self._ranks]
        space = token[0] if token[0] in " \t" else ""
        return f"{space}[{', '.join(map(str, known))}]" if known else ""


def parse_citations(
    answer: str, ranks: int | Collection[int], *, uncited: bool = False
) -> list[Citation]:
    """One Citation per sentence that names an existing passage, in the order of the text; with
    `uncited` also one without passages for each other sentence that could be checked.

    `answer[start:end]` is the sentence without the markers at its ends; markers inside it stay.
    Markers that stand alone on a line belong to the sentence before. Ranks are in the order in
    which they are named, each once; unknown ones are left out.
    """
    known = _ranks(ranks)
    code = [m.span() for m in _CODE.finditer(answer)]
    markers = [m for m in _MARKER.finditer(answer) if not any(a <= m.start() < b for a, b in code)]
    found: dict[tuple[int, int], list[int]] = {}
    last: tuple[int, int] | None = None
    at = 0
    for start, end in split_sentences(answer):
        inside = []
        while at < len(markers) and markers[at].start() < end:
            inside.append(markers[at])
            at += 1
        span = _without_markers(answer, start, end, inside)
        leading, inside = _leading(answer, start, inside)
        if last is not None and leading and not _is_subject(answer, span, leading, start):
            found.setdefault(last, []).extend(_named(leading, known))
        else:
            inside = leading + inside
        if span[0] < span[1]:
            last = span
            if uncited and _claims(answer, span, code):
                found.setdefault(span, [])
        if last is not None and inside:
            found.setdefault(last, []).extend(_named(inside, known))
    return [
        Citation(start, end, tuple(dict.fromkeys(named)))
        for (start, end), named in sorted(found.items())
        if named or uncited
    ]


def _claims(answer: str, span: tuple[int, int], code: Sequence[tuple[int, int]]) -> bool:
    """Whether a sentence says something that could be checked: code, headings and what leads in
    to a list do not.
    """
    said = answer[slice(*span)]
    if any(a <= span[0] < b for a, b in code) or said.endswith((":", "：")):
        return False
    return not _HEADING.match(said) and any(c.isalnum() for c in said)


def without_markers(text: str) -> str:
    """The text with every marker, and the space before it, taken out."""
    return re.sub(rf"[ \t]?{_MARKER.pattern}", "", text)


def _expand(numbers: str) -> list[int]:
    """'1, 3-5' -> [1, 3, 4, 5]; a range of more than 50 is its two ends."""
    named: list[int] = []
    for part in re.split(r"[,，、;]", numbers):
        ends = [int(n) for n in re.findall(r"\d+", part)]
        if len(ends) == 2 and 0 < ends[1] - ends[0] <= 50:
            named.extend(range(ends[0], ends[1] + 1))
        else:
            named.extend(ends)
    return list(dict.fromkeys(named))


def _named(markers: Sequence[re.Match[str]], known: frozenset[int]) -> list[int]:
    return [n for m in markers for n in _expand(m.group()[1:-1]) if n in known]


def _without_markers(
    answer: str, start: int, end: int, markers: Sequence[re.Match[str]]
) -> tuple[int, int]:
    for marker in markers:
        if answer[start : marker.start()].strip():
            break
        start = marker.end()
    for marker in reversed(markers):
        if marker.start() < start or answer[marker.end() : end].strip():
            break
        end = marker.start()
    while start < end and answer[start].isspace():
        start += 1
    while end > start and answer[end - 1].isspace():
        end -= 1
    return start, end


def _leading(
    answer: str, start: int, markers: list[re.Match[str]]
) -> tuple[list[re.Match[str]], list[re.Match[str]]]:
    """The markers before the sentence's first word, and the rest."""
    count = 0
    for marker in markers:
        if answer[start : marker.start()].strip():
            break
        start, count = marker.end(), count + 1
    return markers[:count], markers[count:]


def _is_subject(
    answer: str, span: tuple[int, int], leading: Sequence[re.Match[str]], start: int
) -> bool:
    """Whether leading markers belong to their own sentence ('[1] says …') and not the one before.

    They do when a sentence follows that begins on a new line of its own.
    """
    return span[0] < span[1] and "\n" in answer[max(0, start - 2) : start]

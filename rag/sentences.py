"""Splits text into sentences, in English and Korean, as character spans.

One splitter serves the chunker, the extractive generator and the citations, so that a sentence is
the same thing wherever it is cut, quoted or checked.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

_LINE = re.compile(r"[^\n\r\f\v\x85\u2028\u2029]+")
_BREAK = re.compile(r"\r\n|[\n\r\f\v\x85\u2028\u2029]")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})[^`]*$")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s")
_TABLE_ROW = re.compile(r"\s*\|")
_ENUMERATOR = r"(?:\d{1,3}|[A-Za-z]|[가나다라마바사아자차카타파하]|[ivxIVX]{1,5})[.)]"
_LIST_ITEM = re.compile(
    rf"\s*(?:[-*+•‣▪◦·○●]\s|\[[ xX]\]\s|[①-⑳]|\(?{_ENUMERATOR}\s|\((?:\d{{1,3}}|[a-z가-힣])\)\s)"
)
_ONLY_ENUMERATOR = re.compile(rf"\s*(?:[-*+•‣▪◦·○●]\s+)?\(?{_ENUMERATOR}$")
_KEY_VALUE = re.compile(r"\s*[^\s:：][^:：\n]{0,40}[:：]\s+\S")
_NUMBER_COLUMN = re.compile(r"\s*\d+\s")
_INDENTED = re.compile(r"(?: {4}|\t)")
_CODE_LIKE = re.compile(r"[{};=<>$\\]|\w\(|\s*(?:#|//|--|import |from |def |kubectl |docker |pip )")

_END = re.compile(
    r"([.!?。！？…]+[\"'”’)\]」』》〉`*]*)"
    r"(?: ?\[\d{1,3}(?:[,-] ?\d{1,3}){0,8}\])*"  # a citation belongs to the sentence before it
)
_WIDE_END = re.compile(r"[。！？]")
_INLINE_CODE = re.compile(r"`[^`\n]{1,300}`")
_LAST_TOKEN = re.compile(r"[^\s(\[\"'“‘/]*$")
_INITIALISM = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]$")
_KOREAN_DATE = re.compile(r"\d{4}\.\s*\d{1,2}(?:\.\s*\d{1,2})?$")
_KOREAN_QUOTING = re.compile(r"(?:이?라고|라는|이?라며|하고|고|라면서)(?![가-힣])")
_WORD = re.compile(r"[^\W\d_]+")
_LOOK_BACK = 24  # characters; longer than any abbreviation or date that is asked about


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ABBREVIATIONS = _words(
    "mr mrs ms dr prof st gen sen rep gov capt lt col sgt rev hon vs cf al e.g i.e eg ie viz ca "
    "approx resp incl excl esp dept univ assn fig figs eq eqs sec ch vol vols ed eds pp par"
)
_BEFORE_NUMBERS = _words("no nos p pp art ver v jan feb mar apr jun jul aug sep sept oct nov dec")
_STARTERS = _words(
    "a an the it its this that these those in on at if when while as for to from he she they we "
    "you i there here however but and so each all any no not with after before by see use "
    "then thus also where what why how who which is are does do can"
)


def split_sentences(text: str) -> list[tuple[int, int]]:
    """The sentences of `text` as [start, end) spans.

    The spans are in order, disjoint, and together hold every character that is not white space;
    none begins or ends with white space. A heading, a table row and a line of code are one span
    each; a list item begins a new one. Lines of a wrapped paragraph are joined. Time is linear in
    the length of the text.
    """
    spans: list[tuple[int, int]] = []
    for start, end, is_prose in _units(text):
        if is_prose:
            spans.extend(_split_prose(text, start, end))
        else:
            _append_stripped(spans, text, start, end)
    return spans


def _append_stripped(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        spans.append((start, end))


def _units(text: str) -> Iterator[tuple[int, int, bool]]:
    """(start, end, is_prose): runs of lines inside which only punctuation ends a sentence."""
    fence = ""
    in_list = False
    after_blank = True
    run: list[tuple[int, int]] = []
    previous_end = 0
    for match in _LINE.finditer(text):
        start, end = match.span()
        line = match.group()
        after_blank = after_blank or _count_breaks(text, previous_end, start) > 1
        previous_end = end
        if line.isspace():
            after_blank = True
            continue
        opening = _FENCE.match(line)
        is_code = bool(fence) or opening is not None
        if opening:
            mark = opening.group(1)
            if not fence:
                fence = mark
            elif mark.startswith(fence) and line.strip() == mark:
                fence = ""
        indented = bool(_INDENTED.match(line))
        is_item = not is_code and bool(_LIST_ITEM.match(line))
        may_be_code = indented and not in_list and not is_item and (after_blank or not run)
        in_code = is_code or (may_be_code and bool(_CODE_LIKE.search(line)))
        alone = in_code or bool(_HEADING.match(line) or _TABLE_ROW.match(line))
        if run and (after_blank or alone or is_item):
            yield from _paragraphs(text, run)
            run = []
        if alone:
            yield start, end, False
        else:
            run.append((start, end))
        in_list = is_item or (in_list and (indented or not after_blank))
        after_blank = False
    if run:
        yield from _paragraphs(text, run)


def _count_breaks(text: str, start: int, end: int) -> int:
    return sum(1 for _ in _BREAK.finditer(text, start, end))


def _paragraphs(text: str, lines: list[tuple[int, int]]) -> Iterator[tuple[int, int, bool]]:
    """Joins the lines of one run, but for breaks that were meant: a short line that looks like a
    title, and lines below each other that begin with `key:` or with a number.
    """
    width = max(end - start for start, end in lines)
    begin = lines[0][0]
    for (start, end), (next_start, next_end) in itertools.pairwise(lines):
        if _is_meant_break(text, (start, end), (next_start, next_end), width):
            yield begin, end, True
            begin = next_start
    yield begin, lines[-1][1], True


def _is_meant_break(
    text: str, line: tuple[int, int], following: tuple[int, int], width: int
) -> bool:
    for shape in (_KEY_VALUE, _NUMBER_COLUMN):
        if shape.match(text, *line) and shape.match(text, *following):
            return True
    first = text[following[0] : following[0] + 40].lstrip()[:1]
    last = text[max(line[0], line[1] - 40) : line[1]].rstrip()[-1:]
    is_short = (line[1] - line[0]) * 2 < width
    return is_short and not first.islower() and last not in ",;:-·、，"


def _split_prose(text: str, start: int, end: int) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    code = [m.span() for m in _INLINE_CODE.finditer(text, start, end)]
    next_code = 0
    begin = start
    for match in _END.finditer(text, start, end):
        while next_code < len(code) and code[next_code][1] <= match.start():
            next_code += 1
        if next_code < len(code) and code[next_code][0] <= match.start():
            continue
        cut = _boundary(text, begin, match, end)
        if cut is not None:
            _append_stripped(spans, text, begin, cut)
            begin = cut
    _append_stripped(spans, text, begin, end)
    return spans


def _boundary(text: str, begin: int, match: re.Match[str], limit: int) -> int | None:
    """Where the sentence that began at `begin` ends, if it ends at this punctuation."""
    stop, after = match.start(), match.end()
    if after >= limit:
        return limit
    before = text[max(begin, stop - _LOOK_BACK) : stop]
    mark = match.group(1)
    if not text[after].isspace():
        glued = before[-1:] in "다요까죠" and before and "가" <= text[after] <= "힣"
        closed = mark[-1] in "\"'”’」』"
        return after if (_WIDE_END.search(mark) or glued) and not closed else None
    following = text[after : after + 80].lstrip()[:24]
    if _KOREAN_QUOTING.match(following) and mark[-1] in "\"'”’」』":
        return None
    if mark[0] != "." or mark.startswith("..") or not before:
        return None if mark[0] in ".…" and following[:1].islower() else after
    head = text[begin:stop] if stop - begin < _LOOK_BACK else before
    return after if _full_stop_ends(before, following, head) else None


def _full_stop_ends(before: str, following: str, sentence: str) -> bool:
    """Whether '.' between `before` and `following` ends the sentence rather than a short form."""
    last = before[-1]
    if "가" <= last <= "힣" and not _is_enumerator(sentence):
        return True
    match = _LAST_TOKEN.search(before)
    token = match.group().lower() if match else ""
    if following[:1].islower() or _is_enumerator(sentence):
        return False
    if last.isdigit():
        is_date = bool(_KOREAN_DATE.search(before))
        return not is_date and not (token.isdigit() and len(token) <= 4 and following[:1].isdigit())
    if token in _ABBREVIATIONS:
        return False
    if token in _BEFORE_NUMBERS:
        return not following[:1].isdigit()
    if _INITIALISM.fullmatch(token) and token not in ("a.m", "p.m", "i"):
        word = _WORD.match(following)
        return word is None or word.group().lower() in _STARTERS
    return True


def _is_enumerator(sentence: str) -> bool:
    return len(sentence) < 16 and bool(_ONLY_ENUMERATOR.match(f"{sentence}."))

"""The lines of text on the pages of a PDF, with where they stand and how they are set."""

from __future__ import annotations

import ctypes
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import pypdfium2.raw as pdfium

_HYPHEN = "\x02"  # PDFium: a hyphen at a line end, with the lines already joined
_HYPHEN_AS_TEXT = 0xFFFE  # the same, in a page's whole text
_UNBROKEN = re.compile(f"[^\n\r{_HYPHEN}]+")
_SHOWN = re.compile("[^\0-\x20\xa0]")
SOFT_HYPHEN = "\xad"
"""Ends a line whose last word goes on in the next."""
_BOLD = re.compile(r"bold|black|heavy|demi|CMBX|SFBX|[-,]bd", re.IGNORECASE)
_BULLET_GLYPHS = re.compile("[\uf0b7\uf0a7\uf0a8\uf076\uf0d8\uf06c\uf06e\u2022\u25aa\u25cf]")
_LEADERS = re.compile(r"(?:\s?[.·…]){5,}")  # the dots between an entry and its page
_DIGITS = re.compile(r"\d+")
_MARGIN = 0.1  # share of the page height, at the top and at the bottom, where furniture stands
_WIDE_MARGIN = 0.2  # the same for the outermost line of a page
_REPEATS = 0.4  # share of the pages; headers of left and right pages differ
_NAME_BYTES = 128
_MAX_CHARS = 2_000_000  # on one page: beyond, it is a hostile file


class Line(NamedTuple):
    """One line in reading order. Coordinates in points as displayed, y from the top of the page;
    `top` is of its first character and `baseline` of its last, `size` is the font's.
    """

    text: str
    page: int
    left: float
    right: float
    top: float
    baseline: float
    size: float
    bold: bool


class _Box(NamedTuple):
    left: float
    right: float
    top: float
    bottom: float


def page_lines(page: Any, number: int) -> tuple[list[Line], float]:
    """The lines of one page, and its height; `number` counts from 1."""
    text_page = page.get_textpage()
    width, height = page.get_size()
    reader = _PageReader(text_page, page.get_rotation(), width, height, number)
    try:
        return reader.lines(), height
    finally:
        text_page.close()


class _PageReader:
    def __init__(
        self, text_page: Any, rotation: int, width: float, height: float, number: int
    ) -> None:
        self._page = text_page.raw
        self._count = min(text_page.count_chars(), _MAX_CHARS)
        self._rotation = rotation
        self._width = width
        self._height = height
        self._number = number
        self._matrix = pdfium.FS_MATRIX()
        self._name = ctypes.create_string_buffer(_NAME_BYTES)
        self._flags = ctypes.c_int()

    def lines(self) -> list[Line]:
        units = self._units()
        lines = (self._line(units, *match.span()) for match in _UNBROKEN.finditer(units))
        return [line for line in lines if line]

    def _units(self) -> str:
        """The page's characters as PDFium counts them: UTF-16 units, surrogates by themselves."""
        target = (ctypes.c_ushort * (self._count + 1))()
        got = pdfium.FPDFText_GetText(self._page, 0, self._count, target)
        codes = target[: max(got - 1, 0)]
        if len(codes) != self._count:  # left out: those that are no character
            codes = [pdfium.FPDFText_GetUnicode(self._page, i) for i in range(self._count)]
        elif _HYPHEN_AS_TEXT in codes:
            for i in (i for i, code in enumerate(codes) if code == _HYPHEN_AS_TEXT):
                codes[i] = pdfium.FPDFText_GetUnicode(self._page, i)
        return "".join(map(chr, codes))

    def _line(self, units: str, start: int, end: int) -> Line | None:
        shown = [match.start() for match in _SHOWN.finditer(units, start, end)]
        if not shown:
            return None
        text = units[start:end].replace("\0", "").replace(SOFT_HYPHEN, "-")
        if not text.isascii():
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        text = _LEADERS.sub(" … ", _BULLET_GLYPHS.sub("•", text)).strip()
        if units.startswith(_HYPHEN, end):
            text += SOFT_HYPHEN
        first, last = self._box(shown[0]), self._box(shown[-1])
        samples = [shown[len(shown) * i // 5] for i in range(5)]
        return Line(
            text=text,
            page=self._number,
            left=min(first.left, last.left),
            right=max(first.right, last.right),
            top=first.top,
            baseline=last.bottom,
            size=sorted(map(self._size, samples))[2],
            bold=sum(map(self._is_bold, samples)) > 2,
        )

    def _box(self, index: int) -> _Box:
        """A character's box as displayed, y growing downwards."""
        rect = pdfium.FS_RECTF()
        pdfium.FPDFText_GetLooseCharBox(self._page, index, rect)
        left, right, low, high = rect.left, rect.right, rect.bottom, rect.top
        if self._rotation == 90:
            return _Box(low, high, left, right)
        if self._rotation == 180:
            return _Box(self._width - right, self._width - left, low, high)
        if self._rotation == 270:
            return _Box(self._width - high, self._width - low, self._height - right,
                        self._height - left)  # fmt: skip
        return _Box(left, right, self._height - high, self._height - low)

    def _size(self, index: int) -> float:
        matrix = self._matrix
        scale = 1.0
        if pdfium.FPDFText_GetMatrix(self._page, index, matrix):
            scale = math.hypot(matrix.c, matrix.d) or 1.0
        size: float = pdfium.FPDFText_GetFontSize(self._page, index) * scale
        return round(size * 2) / 2

    def _is_bold(self, index: int) -> bool:
        size = pdfium.FPDFText_GetFontInfo(self._page, index, self._name, _NAME_BYTES, self._flags)
        return 0 < size <= _NAME_BYTES and _is_bold_name(self._name.value)


@lru_cache(256)
def _is_bold_name(name: bytes) -> bool:
    return _BOLD.search(name.decode("utf-8", "replace")) is not None


def without_furniture(
    pages: Sequence[Sequence[Line]], heights: Sequence[float]
) -> list[list[Line]]:
    """The pages without running headers, footers and page numbers.

    That is what stands at the edge of many pages, the same but for its digits, and a page's own
    number at its edge.
    """
    edges = [_edge(lines, height) for lines, height in zip(pages, heights, strict=True)]
    on_pages: Counter[str] = Counter()
    for edge in edges:
        on_pages.update({_key(line) for line in edge})
    least = max(2, math.ceil(_REPEATS * len(pages)))
    dropped = {
        id(line)
        for edge in edges
        for line in edge
        if on_pages[_key(line)] >= least or line.text == str(line.page)
    }
    return [[line for line in lines if id(line) not in dropped] for lines in pages]


def _edge(lines: Sequence[Line], height: float) -> list[Line]:
    """The lines near the top and the bottom of a page, and its first and last in reading order:
    pages printed from HTML end where their content ends.
    """
    if not lines:
        return []
    highest = min(line.top for line in lines)
    lowest = max(line.baseline for line in lines)
    return [
        line
        for i, line in enumerate(lines)
        if i in (0, len(lines) - 1)
        or line.top < (_WIDE_MARGIN if line.top == highest else _MARGIN) * height
        or line.baseline > (1 - (_WIDE_MARGIN if line.baseline == lowest else _MARGIN)) * height
    ]


def _key(line: Line) -> str:
    return _DIGITS.sub("#", "".join(line.text.split()).lower())

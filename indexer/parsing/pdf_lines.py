"""The lines of text on the pages of a PDF, with where they stand and how they are set."""

from __future__ import annotations

import ctypes
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import pypdfium2.raw as pdfium

_LINE_BREAKS = frozenset((0x0A, 0x0D))
_BOLD = re.compile(r"bold|black|heavy|demi", re.IGNORECASE)
_BULLET_GLYPHS = re.compile("[\uf0b7\uf0a7\uf0a8\uf076\uf0d8\uf06c\uf06e\u2022\u25aa\u25cf]")
_DIGITS = re.compile(r"\d+")
_MARGIN = 0.1  # share of the page height, at the top and at the bottom, where furniture stands
_REPEATS = 0.4  # share of the pages; headers of left and right pages differ
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
        self._page = text_page
        self._rotation = rotation
        self._width = width
        self._height = height
        self._number = number

    def lines(self) -> list[Line]:
        codes = [
            pdfium.FPDFText_GetUnicode(self._page, i)
            for i in range(min(self._page.count_chars(), _MAX_CHARS))
        ]
        lines: list[Line] = []
        start = 0
        for i, code in enumerate([*codes, 0x0A]):
            if code in _LINE_BREAKS:
                if line := self._line(codes, start, i):
                    lines.append(line)
                start = i + 1
        return lines

    def _line(self, codes: Sequence[int], start: int, end: int) -> Line | None:
        shown = [i for i in range(start, end) if codes[i] > 0x20 and codes[i] != 0xA0]
        if not shown:
            return None
        # PDFium hands out UTF-16 units; 0x02 is a hyphen at whose line end it joined the word.
        units = (code for code in codes[start:end] if code not in (0, 0x02))
        text = "".join(map(chr, units)).encode("utf-16-le", "surrogatepass")
        first, last = self._box(shown[0]), self._box(shown[-1])
        middle = shown[len(shown) // 2]
        return Line(
            text=_BULLET_GLYPHS.sub("•", text.decode("utf-16-le", "replace")).strip(),
            page=self._number,
            left=min(first.left, last.left),
            right=max(first.right, last.right),
            top=first.top,
            baseline=last.bottom,
            size=sorted(self._size(i) for i in (shown[0], middle, shown[-1]))[1],
            bold=self._is_bold(middle),
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
        matrix = pdfium.FS_MATRIX()
        scale = 1.0
        if pdfium.FPDFText_GetMatrix(self._page, index, matrix):
            scale = math.hypot(matrix.c, matrix.d) or 1.0
        size: float = pdfium.FPDFText_GetFontSize(self._page, index) * scale
        return round(size * 2) / 2

    def _is_bold(self, index: int) -> bool:
        name = ctypes.create_string_buffer(128)
        flags = ctypes.c_int()
        pdfium.FPDFText_GetFontInfo(self._page, index, name, 128, flags)
        return _BOLD.search(name.value.decode("utf-8", "replace")) is not None


def without_furniture(
    pages: Sequence[Sequence[Line]], heights: Sequence[float]
) -> list[list[Line]]:
    """The pages without running headers, footers and page numbers: what stands in the margin of
    many pages, the same but for its digits.
    """
    on_pages: Counter[str] = Counter()
    for lines, height in zip(pages, heights, strict=True):
        on_pages.update({_key(line) for line in lines if _in_margin(line, height)})
    least = max(2, math.ceil(_REPEATS * len(pages)))
    return [
        [ln for ln in lines if not (_in_margin(ln, height) and on_pages[_key(ln)] >= least)]
        for lines, height in zip(pages, heights, strict=True)
    ]


def _in_margin(line: Line, height: float) -> bool:
    return line.top < _MARGIN * height or line.baseline > (1 - _MARGIN) * height


def _key(line: Line) -> str:
    return _DIGITS.sub("#", "".join(line.text.split()).lower())

"""Plain text: paragraphs between empty lines."""

from __future__ import annotations

import re

from indexer.parsing.builder import DocumentBuilder
from indexer.parsing.cleaning import clean
from indexer.parsing.encoding import decode

_EMPTY_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")
_UNDERLINED = re.compile(r"([^\n]{1,120})\n(={3,}|-{3,}|~{3,})(?:\n|\Z)")
_LEVELS = {"=": 1, "-": 2, "~": 3}


def parse(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the text in `data`, in whatever encoding it is; underlined lines are headings."""
    add_paragraphs(decode(data), builder)


def add_paragraphs(text: str, builder: DocumentBuilder) -> None:
    """Adds `text` split at its empty lines."""
    for paragraph in _EMPTY_LINES.split(clean(text).strip("\n")):
        if heading := _UNDERLINED.match(paragraph):
            builder.heading(heading[1], _LEVELS[heading[2][0]])
            paragraph = paragraph[heading.end() :]
        builder.paragraph(paragraph)

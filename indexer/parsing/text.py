"""Plain text: paragraphs between empty lines."""

from __future__ import annotations

import re

from indexer.parsing.builder import DocumentBuilder
from indexer.parsing.cleaning import clean
from indexer.parsing.encoding import decode

_EMPTY_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+")


def parse(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the text in `data`, in whatever encoding it is."""
    add_paragraphs(decode(data), builder)


def add_paragraphs(text: str, builder: DocumentBuilder) -> None:
    """Adds `text` split at its empty lines."""
    for paragraph in _EMPTY_LINES.split(clean(text)):
        builder.paragraph(paragraph)

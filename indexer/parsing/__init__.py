"""Bytes of one file to one Document: which formats there are, and which parser reads them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from indexer.parsing.builder import DocumentBuilder
from indexer.parsing.formats import FORMATS, Format, choose_format
from rag.errors import ConfigurationError, DocumentError, UnreadableDocument
from rag.types import Document, Metadata

__all__ = ["FORMATS", "VERSION", "Format", "parse", "parse_row", "supported_formats"]

VERSION = 1
"""Raised whenever the same bytes would give another Document."""

Parser = Callable[[bytes, DocumentBuilder], None]


def supported_formats() -> tuple[str, ...]:
    """The short names of all formats that `parse` reads, sorted."""
    return tuple(sorted(format_.name for format_ in FORMATS))


def parse(data: bytes, *, doc_id: str, uri: str, extra: Metadata | None = None) -> Document:
    """One file's text, blocks and metadata; the same bytes give the same Document.

    The format is chosen by the ending of `doc_id` (in any case) and by the content where the
    ending is missing or lies. `extra` overrides metadata that the file states itself.

    Raises UnsupportedFormat for a format nobody here reads, and UnreadableDocument for a file
    that is broken, empty, password-protected or without text; both begin with the `doc_id`.
    """
    try:
        return _parse(data, doc_id, uri, extra)
    except DocumentError as error:
        raise type(error)(f"{doc_id}: {error}") from error
    except (MemoryError, ConfigurationError):
        raise
    except Exception as error:
        # The one boundary to the parser libraries: on hostile or damaged files they raise
        # anything at all (KeyError, AttributeError, RecursionError, their own), documented or not.
        reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise UnreadableDocument(f"{doc_id}: the file is damaged: {reason}") from error


def parse_row(
    text: str, *, doc_id: str, uri: str, title: str, format_name: str, extra: Metadata
) -> Document:
    """A row of a text corpus as a Document: paragraphs between empty lines.

    Raises UnreadableDocument for a row without text; it begins with the `doc_id`.
    """
    from indexer.parsing.text import add_paragraphs

    builder = DocumentBuilder()
    builder.title = title or None
    add_paragraphs(text, builder)
    try:
        return builder.build(doc_id=doc_id, uri=uri, format_name=format_name, extra=extra)
    except DocumentError as error:
        raise type(error)(f"{doc_id}: {error}") from error


def _parse(data: bytes, doc_id: str, uri: str, extra: Metadata | None) -> Document:
    format_ = choose_format(data, doc_id)
    builder = DocumentBuilder()
    _load(format_)(data, builder)
    return builder.build(doc_id=doc_id, uri=uri, format_name=format_.name, extra=extra)


def _load(format_: Format) -> Parser:
    """The parser, imported at its first use: a folder of Markdown needs no office libraries."""
    module, _, function = format_.parser.partition(":")
    try:
        parser: Parser = getattr(import_module(f"indexer.parsing.{module}"), function)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("indexer"):
            raise
        raise ConfigurationError(
            f"{format_.name} files need the package '{error.name}': install rag-containers[indexer]"
        ) from error
    return parser

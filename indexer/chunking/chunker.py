"""The chunker: options, and the way from a document to its chunks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from indexer.chunking.context import Context, ContextWriter, room
from indexer.chunking.cutting import Cutter, Span
from indexer.chunking.sections import Part, parts
from indexer.chunking.tokens import TokenMap
from rag.errors import ConfigurationError, UnreadableDocument
from rag.models.encoder import EncoderConfig
from rag.models.tokenizer import Tokenizer
from rag.types import BlockKind, Chunk, Document, Int64

NAME = "structure"
VERSION = 1
"""Raised whenever the same document and options would give other chunks."""
DEFAULT_SIZE = 256
"""At a fixed depth longer passages answer more questions with more text beside the answer, as
tests/bench/chunking.py measures up to this size; most encoders were trained on about as much."""
_LEAST_ROOM = 32


@dataclass(frozen=True, slots=True)
class ChunkerOptions:
    """How long chunks are, in tokens of the encoder, context not counted.

    `size`: the most a chunk's text may have; None is 256, or what the encoder can read if that is
    less. Context comes first: where it leaves less, the text is shorter. `overlap`: the most that
    is repeated, in whole sentences, from the chunk before in the same section. `min_size`:
    sections below it are joined with their small neighbours, and cuts that would leave less are
    avoided; None is an eighth of `size`. `context`: whether title, headings and table headers are
    put before the text; without it headings stay in the text.
    Raises ConfigurationError for sizes that cannot be.
    """

    size: int | None = None
    overlap: int = 0
    min_size: int | None = None
    context: bool = True

    def __post_init__(self) -> None:
        size = DEFAULT_SIZE if self.size is None else self.size
        if size < _LEAST_ROOM // 2:
            raise ConfigurationError(
                f"chunk size is {size} tokens; give {_LEAST_ROOM // 2} or more"
            )
        for name, value in (("overlap", self.overlap), ("min_size", self.min_size or 0)):
            if not 0 <= value <= size // 2:
                raise ConfigurationError(
                    f"chunk {name} is {value} tokens; give 0 to {size // 2}, half of the size"
                )

    def reference(self) -> dict[str, Any]:
        """The chunker for a manifest: its name, its version, and every option."""
        return {"name": NAME, "version": VERSION, **asdict(self)}


class _Piece(NamedTuple):
    part: Part
    span: Span
    context: Context


class Chunker:
    """Cuts documents into chunks. Same document, same encoder, same options: same chunks.

    `options` are the ones given, with `size` and `min_size` resolved. Raises ConfigurationError
    for a size that the encoder cannot read, or a passage prompt that leaves it no room.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: EncoderConfig,
        options: ChunkerOptions | None = None,
    ) -> None:
        options = options or ChunkerOptions()
        available = room(tokenizer, config)
        if available < _LEAST_ROOM:
            raise ConfigurationError(
                f"{config.name} reads {config.max_tokens} tokens, which leaves {available} beside"
                f" its passage prompt; at least {_LEAST_ROOM} are needed"
            )
        if options.size is not None and options.size > available:
            raise ConfigurationError(
                f"chunk size is {options.size} tokens, {config.name} reads {available};"
                " give a smaller size"
            )
        size = min(DEFAULT_SIZE, available) if options.size is None else options.size
        least = size // 8 if options.min_size is None else options.min_size
        self.options = replace(options, size=size, min_size=least)
        self._size, self._least = size, least
        self._tokenizer = tokenizer
        self._config = config

    def reference(self) -> dict[str, Any]:
        """The chunker for a manifest, sizes resolved."""
        return self.options.reference()

    def tokens(self, chunks: Sequence[Chunk]) -> Int64:
        """int64 (n,): the tokens the encoder reads of each, context, prompt and special ones in."""
        prompt = self._config.prompts["passage"]
        return self._tokenizer.count([prompt + chunk.indexed_text for chunk in chunks])

    def chunks(self, document: Document) -> list[Chunk]:
        """The chunks of a document, in order of `start`.

        Each text is a slice of the document without white space around it; with its context and
        the passage prompt it is never longer than the encoder reads. Every character of every
        block that is not white space is in a chunk, or, for a heading, in the `headings` of one.
        Chunks are disjoint where `overlap` is 0. Graphemes are kept whole, unless one alone is
        too long. Time is linear in the length of the text.
        Raises UnreadableDocument for text that is not valid Unicode (a lone surrogate).
        """
        return [chunk for chunk, _ in self.sized_chunks(document)]

    def sized_chunks(self, document: Document) -> list[tuple[Chunk, int]]:
        """`chunks`, each with its length as `tokens` counts it."""
        _check_unicode(document)
        tokens = TokenMap(document, self._tokenizer)
        cutter = Cutter(document, tokens)
        writer = ContextWriter(document.title, self._tokenizer, self._config)
        pieces = [
            piece
            for part in parts(document, tokens.count, self._least, not self.options.context)
            for piece in self._pieces(document, part, cutter, writer)
        ]
        return [
            (_chunk(document, fitting), int(count))
            for piece, size in zip(pieces, self._sizes(document, pieces), strict=True)
            for fitting, count in self._fit(document, piece, size, cutter)
        ]

    def _pieces(
        self, document: Document, part: Part, cutter: Cutter, writer: ContextWriter
    ) -> Iterator[_Piece]:
        def context(start: int) -> Context:
            if not self.options.context:
                return writer.empty()
            return writer.write(part.headings, _table_header(document, part, start))

        def most(start: int) -> int:
            return min(self._size, context(start).room)

        for span in cutter.cut(part, most, self._least, self.options.overlap):
            yield _Piece(part, span, context(span[0]))

    def _sizes(self, document: Document, pieces: list[_Piece]) -> Int64:
        return self.tokens([_chunk(document, piece) for piece in pieces])

    def _fit(
        self, document: Document, piece: _Piece, size: np.int64, cutter: Cutter
    ) -> Iterator[tuple[_Piece, np.int64]]:
        """The piece itself if the encoder can read it, else smaller ones that it can; with sizes.

        Tokens of a joined or cut text are not the sum of its parts, so only this count decides.
        Each turn halves the text, or, for a single grapheme, the context: it ends.
        """
        if size <= self._config.max_tokens:
            yield piece, size
            return
        smaller = _halve(piece, cutter)
        for half, count in zip(smaller, self._sizes(document, smaller), strict=True):
            if half == piece:
                yield piece, count
            else:
                yield from self._fit(document, half, count, cutter)


def _halve(piece: _Piece, cutter: Cutter) -> list[_Piece]:
    spans = cutter.halve(piece.part, piece.span)
    start, end = piece.span
    context = piece.context.text
    if len(spans) == 1 and context:
        kept = context[: len(context) // 2].rstrip(" …\n")
        return [piece._replace(context=Context(f"{kept}…" if kept else "", 0))]
    if len(spans) == 1 and end - start > 1:
        middle = (start + end) // 2
        spans = [(start, middle), (middle, end)]
    return [piece._replace(span=span) for span in spans]


def _chunk(document: Document, piece: _Piece) -> Chunk:
    (start, end), part = piece.span, piece.part
    block = part.blocks[bisect_right(part.starts, start) - 1]
    return Chunk(
        doc_id=document.doc_id,
        uri=document.uri,
        title=document.title,
        text=document.text[start:end],
        start=start,
        end=end,
        page=block.page,
        headings=part.headings,
        context=piece.context.text,
        lang=document.lang,
        format=document.format,
        metadata=document.metadata,
    )


def _table_header(document: Document, part: Part, start: int) -> str:
    """The header of the table whose rows are cut at `start`, or ''."""
    block = part.blocks[bisect_right(part.starts, start) - 1]
    if block.kind is not BlockKind.TABLE or block.header_end is None or start < block.header_end:
        return ""
    return document.text[block.start : block.header_end]


def _check_unicode(document: Document) -> None:
    try:
        document.text.encode()
        document.title.encode()
    except UnicodeEncodeError as error:
        raise UnreadableDocument(
            f"{document.doc_id}: its text holds a lone surrogate ({error.reason});"
            " convert the document to valid Unicode"
        ) from None

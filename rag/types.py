"""The nouns that every room shares. Plain data: no I/O, no third-party import but numpy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
RowMask = NDArray[np.bool_]
"""bool (rows,): True where a row may be returned."""

Scalar = str | int | float | bool
Metadata = Mapping[str, Scalar | Sequence[Scalar]]
"""What a document says of itself beside its text; flat, JSON-representable. Nested maps are
flattened with dots by whoever reads them."""

NO_ROW = -1
"""Pads `Hits.rows`; never indexes anything."""


class BlockKind(StrEnum):
    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST = "list"
    TABLE = "table"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Block:
    """One structural piece of a document: the slice `text[start:end]` of its document.

    `page` counts from 1, or is None in formats without pages. `level` is 1 to 6 for a heading,
    else 0. `header_end` is set for a table whose first rows are its header: the header is
    `text[start:header_end]`, and is repeated as context for every chunk cut from that table.
    """

    kind: BlockKind
    start: int
    end: int
    page: int | None = None
    level: int = 0
    header_end: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One parsed document. Blocks are in reading order, disjoint, and inside `text`; what lies
    between two blocks is white space.

    `doc_id` is the path below the source's root ('/' separated, NFC); `uri` is where a reader
    finds it; `lang` is an ISO 639-1 code, or 'und'; `format` is the parser's short name ('pdf').
    """

    doc_id: str
    uri: str
    title: str
    text: str
    blocks: tuple[Block, ...]
    lang: str
    format: str
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One passage of one document: `text` is exactly `document.text[start:end]`.

    `headings` is the path of headings above it, outermost first. `context` is what is put before
    the text when it is embedded and indexed (title, headings, a table's header); it is not part
    of the slice. `page` is the page of the first character, from 1, or None.
    """

    doc_id: str
    uri: str
    title: str
    text: str
    start: int
    end: int
    page: int | None = None
    headings: tuple[str, ...] = ()
    context: str = ""
    lang: str = "und"
    format: str = ""
    metadata: Metadata = field(default_factory=dict)
    stored_id: str = field(default="", init=False, repr=False, compare=False)
    """The id that a store keeps with it, which saves computing it; not carried to copies."""

    @property
    def indexed_text(self) -> str:
        """What both legs see: the context, a line break, the text."""
        return f"{self.context}\n{self.text}" if self.context else self.text

    @property
    def chunk_id(self) -> str:
        """32 hex digits: the first half of the SHA-256 of everything the chunk is."""
        if self.stored_id:
            return self.stored_id
        parts = [
            self.doc_id, self.uri, self.title, self.text, self.start, self.end, self.page,
            list(self.headings), self.context, self.lang, self.format,
            {k: self.metadata[k] for k in sorted(self.metadata)},
        ]  # fmt: skip
        payload = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(payload.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Hits(NamedTuple):
    """What a search found, for n queries at depth k.

    rows: int64 (n, k), NO_ROW where there are fewer than k. scores: float32 (n, k), -inf there.
    Each line by descending score, ties by ascending row, padding last.
    """

    rows: Int64
    scores: Float32


class LegScore(NamedTuple):
    """Where one leg placed a passage: `rank` from 1, and the leg's own score."""

    rank: int
    score: float


class Passage(NamedTuple):
    """A chunk that was found, with how. `rank` counts from 1; `score` is the one that ranked it
    (fused, or of the only leg asked); `dense`, `sparse` and `rerank` are None where that stage
    did not see it.
    """

    rank: int
    chunk_id: str
    chunk: Chunk
    score: float
    dense: LegScore | None = None
    sparse: LegScore | None = None
    rerank: LegScore | None = None


class Message(NamedTuple):
    """One earlier turn of a conversation; `role` is 'user' or 'assistant'."""

    role: str
    content: str


class Mode(StrEnum):
    """Which legs answer a query."""

    HYBRID = "hybrid"
    DENSE = "dense"
    SPARSE = "sparse"


@dataclass(frozen=True, slots=True)
class Query:
    """One search: its text, how many passages are wanted, and which rows may answer.

    `where` is a filter as the wire gives it (see rag/index/filters.py), or None for all rows.
    `fusion` overrides the bundle's own fusion (see rag/retrieval/fusion.py), or is None.
    """

    text: str
    top_k: int = 5
    where: Mapping[str, Any] | None = None
    legs: Mode = Mode.HYBRID
    fusion: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Citation:
    """The sentence `answer[start:end]` and the ranks (from 1) of the passages it names.
    `supported` says whether those passages bear it out; None where it was not checked.
    """

    start: int
    end: int
    passages: tuple[int, ...]
    supported: bool | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer. `abstained` is True when the passages do not answer the question."""

    text: str
    citations: tuple[Citation, ...]
    generator: str
    abstained: bool = False

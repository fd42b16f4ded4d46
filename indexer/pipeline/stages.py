"""What is done to a batch of documents before it is embedded: a pure function over batches.

`ParseStage` is made once in each worker from plain options, and called with one batch after the
other; equal batches give equal bytes, whichever worker they meet and in whatever order.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexer.chunking import Chunker, ChunkerOptions
from indexer.parsing import parse, parse_row
from indexer.pipeline.records import (
    ID_BYTES,
    ChunkLine,
    DocumentEntry,
    Failure,
    ParsedBatch,
    RawDocument,
    chunk_line,
    encode,
)
from indexer.sidecar import sidecar_metadata
from rag.errors import DocumentError, UnreadableDocument
from rag.index.analysis.scripts import has_hangul, normalize
from rag.index.analyzer import make_analyzer
from rag.index.chunks import DocumentRecord, metadata_problem
from rag.models.encoder import EncoderConfig
from rag.models.tokenizer import Tokenizer
from rag.types import Chunk, Document


@dataclass(frozen=True, slots=True)
class StageOptions:
    """All that decides what `ParseStage` makes of a document. `analyzer` is (name, options)."""

    encoder_folder: Path
    encoder: EncoderConfig
    chunker: ChunkerOptions
    analyzer: tuple[str, dict[str, str]]


class ParseStage:
    """Parses batches of documents, cuts them by `chunker`, and analyses them by `analyzer`."""

    def __init__(self, options: StageOptions) -> None:
        tokenizer = Tokenizer.load(options.encoder_folder)
        self.chunker = Chunker(tokenizer, options.encoder, options.chunker)
        name, settings = options.analyzer
        self.analyzer = make_analyzer(name, **settings)

    def __call__(self, documents: Sequence[RawDocument]) -> bytes:
        """The encoded `ParsedBatch` of `documents`, in their order.

        A document that cannot be indexed is among its failures. Raises MemoryError where one needs
        more memory than there is: the caller tries them one by one.
        """
        entries: list[DocumentEntry] = []
        failures: list[Failure] = []
        chunks: list[tuple[Chunk, int]] = []
        for raw in documents:
            content = content_digest(raw)
            try:
                entry, found = self._document(raw, content)
            except DocumentError as error:
                reason = str(error).removeprefix(f"{raw.doc_id}: ")
                failures.append(Failure(raw.mark, content, raw.doc_id, reason, True))
            else:
                entries.append(entry)
                chunks += found
        return encode(self._batch(entries, failures, chunks))

    def _document(
        self, raw: RawDocument, content: str
    ) -> tuple[DocumentEntry, list[tuple[Chunk, int]]]:
        document = read_document(raw)
        if problem := metadata_problem(document.metadata):
            raise UnreadableDocument(f"its metadata cannot be kept: {problem}")
        chunks = self.chunker.sized_chunks(document)
        if not chunks:
            raise UnreadableDocument("it holds no text")
        record = DocumentRecord(
            doc_id=document.doc_id,
            uri=document.uri,
            title=document.title,
            lang=document.lang,
            format=document.format,
            metadata=dict(document.metadata),
            sha256=hashlib.sha256(raw.data).hexdigest(),
            size=len(raw.data),
        )
        hangul = any(has_hangul(normalize(chunk.indexed_text)) for chunk, _ in chunks)
        return DocumentEntry(raw.mark, content, hangul, len(chunks), record), chunks

    def _batch(
        self,
        entries: list[DocumentEntry],
        failures: list[Failure],
        sized: list[tuple[Chunk, int]],
    ) -> ParsedBatch:
        chunks = [chunk for chunk, _ in sized]
        texts = [chunk.indexed_text for chunk in chunks]
        lines = [
            chunk_line(ChunkLine(c.text, c.start, c.end, c.page, list(c.headings), c.context))
            for c in chunks
        ]
        vocabulary: dict[str, int] = {}
        tallies = [Counter(terms) for terms in self.analyzer.batch(texts)]
        terms = [vocabulary.setdefault(term, len(vocabulary)) for t in tallies for term in t]
        return ParsedBatch(
            documents=entries,
            failures=failures,
            vocabulary=list(vocabulary),
            ids=_rows(bytes.fromhex(chunk.chunk_id) for chunk in chunks),
            digests=text_digests(texts),
            tokens=np.array([size for _, size in sized], dtype=np.int32),
            sizes=np.array([len(tally) for tally in tallies], dtype=np.int32),
            terms=np.array(terms, dtype=np.int32),
            counts=np.array([n for tally in tallies for n in tally.values()], dtype=np.int32),
            ends=np.cumsum([len(line) for line in lines], dtype=np.int64),
            lines=b"".join(lines),
        )


def text_digests(texts: Sequence[str]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """uint8 (n, 16): what tells indexed texts apart; equal texts have equal vectors."""
    return _rows(hashlib.blake2b(t.encode(), digest_size=ID_BYTES).digest() for t in texts)


def content_digest(raw: RawDocument) -> str:
    """SHA-256, 64 hex digits, of all that a document is made from, its names included."""
    about = [raw.doc_id, raw.uri, raw.format, raw.title, raw.metadata, raw.sidecar is not None]
    head = json.dumps(about, ensure_ascii=False, sort_keys=True).encode("utf-8", "surrogatepass")
    digest = hashlib.sha256()
    for part in (head, raw.sidecar or b"", raw.data):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def read_document(raw: RawDocument) -> Document:
    """The document parsed, with its sidecar's metadata. Raises DocumentError."""
    extra = dict(raw.metadata or {})
    if raw.sidecar is not None:
        extra |= sidecar_metadata(raw.sidecar, raw.mark.key)
    if raw.format:
        return parse_row(raw.data.decode("utf-8"), doc_id=raw.doc_id, uri=raw.uri,
                         title=raw.title, format_name=raw.format, extra=extra)  # fmt: skip
    return parse(raw.data, doc_id=raw.doc_id, uri=raw.uri, extra=extra)


def _rows(values: Iterable[bytes]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(values), dtype=np.uint8).reshape(-1, ID_BYTES)

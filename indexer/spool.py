"""Chunks on disk between parsing and writing, so that memory does not grow with the text."""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson

from rag.types import Chunk, Int64


class Spool:
    """Chunks in the order they were added; each keeps 40 bytes in memory, its text on disk.

    Used as a context manager; `finish` ends writing and begins reading. `documents` maps a
    document's number to the fields that its chunks share.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._offsets = array("q", [0])
        self._ids = bytearray()
        self._tokens = array("i")
        self._shared: list[bytes] = []
        self._map: mmap.mmap | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._map is not None:
            self._map.close()
        self._file.close()

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, chunks: list[Chunk], tokens: Int64) -> None:
        """Appends one document's chunks; `tokens` int64 (len(chunks),) are their lengths."""
        if not chunks:
            return
        first = chunks[0]
        self._shared.append(
            orjson.dumps(
                [first.doc_id, first.uri, first.title, first.lang, first.format,
                 dict(first.metadata)]
            )
        )  # fmt: skip
        document = len(self._shared) - 1
        for chunk in chunks:
            line = orjson.dumps(
                [document, chunk.text, chunk.start, chunk.end, chunk.page, chunk.headings,
                 chunk.context]
            )  # fmt: skip
            self._file.write(line)
            self._offsets.append(self._offsets[-1] + len(line))
            self._ids += bytes.fromhex(chunk.chunk_id)
        self._tokens.extend(int(count) for count in tokens)

    def finish(self) -> None:
        """Ends writing."""
        self._file.flush()
        if len(self):
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    @property
    def tokens(self) -> Int64:
        """int64 (len(self),): every chunk's length in the encoder's tokens."""
        return np.array(self._tokens, dtype=np.int64)

    @cached_property
    def row_order(self) -> Int64:
        """int64 (len(self),): positions in ascending order of chunk id, the bundle's row order.

        Made once: read it after `finish`.
        """
        ids = np.frombuffer(bytes(self._ids), dtype=">u8").reshape(-1, 2)
        return np.lexsort((ids[:, 1], ids[:, 0])).astype(np.int64)

    def chunk_id(self, position: int) -> str:
        return self._ids[16 * position : 16 * position + 16].hex()

    def chunk(self, position: int) -> Chunk:
        """The chunk that was added as number `position`."""
        document, text, start, end, page, headings, context = self._load(position)
        doc_id, uri, title, lang, format_, metadata = orjson.loads(self._shared[document])
        return Chunk(
            doc_id=doc_id, uri=uri, title=title, text=text, start=start, end=end, page=page,
            headings=tuple(headings), context=context, lang=lang, format=format_,
            metadata=metadata,
        )  # fmt: skip

    def indexed_text(self, position: int) -> str:
        """`Chunk.indexed_text` without the rest."""
        _, text, _, _, _, _, context = self._load(position)
        return f"{context}\n{text}" if context else str(text)

    def in_row_order(self) -> Iterator[tuple[str, Chunk]]:
        """(chunk id, chunk), ascending by id."""
        for position in self.row_order.tolist():
            yield self.chunk_id(position), self.chunk(position)

    def _load(self, position: int) -> Any:
        if self._map is None:
            raise RuntimeError("the spool is still being written; call finish() first")
        return orjson.loads(self._map[self._offsets[position] : self._offsets[position + 1]])

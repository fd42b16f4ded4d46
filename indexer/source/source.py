"""A source: what is listed, and how one object of it is read."""

from __future__ import annotations

import contextlib
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from indexer.pipeline.records import Mark, RawDocument
from indexer.sidecar import SIDECAR
from indexer.source.corpus import CorpusColumns, Row, corpus_format, read_rows
from indexer.source.listing import Item, Patterns, documents
from indexer.source.object_list import listed_keys
from rag.errors import ConditionFailed, ConfigurationError, ObjectNotFound, StorageError
from rag.storage import ObjectInfo, Store, is_remote, join, open_store

T = TypeVar("T")
PART_BYTES = 8 * 2**20
"""Larger remote objects are read in parts of this size, several at once."""
_PARTS_AT_ONCE = 8
_PAUSES = (0.2, 1.0, 4.0)
"""Seconds before an object is asked for again; the store's client has its own retries below."""
_ABSENT = 64  # objects of a list that are asked for at once


class Source:
    """The documents below `uri`, a folder or an object store's prefix.

    `include` and `exclude` are shell patterns over whole keys (`*` crosses '/'); an object is
    taken if any `include` matches (none given: all) and no `exclude` does. Hidden files (a path
    segment that begins with '.') and sidecars are never documents. `object_list` is the URI of a
    list of the objects to take instead of all (see object_list.py). With `columns`, JSON Lines and
    Parquet files are text corpora, in which each row is a document. `base_uri` replaces the part
    of each document's URI before its id; by default that is the source's own URI on an object
    store and nothing for a folder, so that the same files give the same bundle wherever they lie.
    `passed_over` says after `items` how many objects were no documents, and why.
    """

    def __init__(
        self,
        uri: str,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        base_uri: str | None = None,
        object_list: str | None = None,
        columns: CorpusColumns | None = None,
    ) -> None:
        self.uri = uri
        self.columns = columns
        self.base_uri = base_uri if base_uri is not None else (uri if is_remote(uri) else "")
        self._store: Store = open_store(uri)
        self._local = None if is_remote(uri) else Path(self._store.uri)
        self._patterns = Patterns(include, exclude)
        self._object_list = object_list
        self.passed_over: Counter[str] = Counter()

    def items(self) -> Iterator[Item]:
        """Every document, ascending by key, as they are listed: memory does not grow with them.

        What is none is counted in `passed_over`, by why. Raises ConfigurationError, at the end, if
        there was no document.
        """
        self.passed_over = Counter()
        listed = self._store.list() if self._object_list is None else self._named()
        found = False
        for item in documents(listed, self._patterns, self.passed_over):
            found = True
            yield item
        if not found:
            raise ConfigurationError(
                f"{self._store.uri} holds no documents (of {self.passed_over.total()} objects none"
                " was taken); check the URI and the include and exclude patterns"
            )

    def is_corpus(self, item: Item) -> bool:
        """Whether the rows of this object are its documents."""
        return self.columns is not None and corpus_format(item.key) is not None

    def mark(self, item: Item) -> Mark:
        """Which state of the object was listed."""
        sidecar = "" if item.sidecar is None else item.sidecar.etag
        return Mark(item.key, item.info.etag, sidecar)

    def read(self, item: Item) -> RawDocument:
        """The document that is the whole object. Raises StorageError."""
        data = self._read(item.info)
        sidecar = None if item.sidecar is None else self._read(item.sidecar)
        doc_id = unicodedata.normalize("NFC", item.key)
        return RawDocument(self.mark(item), doc_id, self._uri(doc_id), data, sidecar)

    def rows(self, item: Item) -> Iterator[RawDocument | Row]:
        """The documents of a corpus, and, as they are, its rows that have a problem.

        Raises StorageError, UnreadableDocument and ConfigurationError.
        """
        if self.columns is None:
            raise ConfigurationError("a corpus needs the name of its text column")
        mark, format_ = self.mark(item), corpus_format(item.key) or ""
        with tempfile.TemporaryDirectory(prefix="rag-corpus-") as work:
            path = Path(work, "corpus") if self._local is None else self._local / item.key
            if self._local is None:
                retrying(lambda: self._download(item.key, path))
            for row in read_rows(path, item.key, self.columns):
                if row.problem is not None:
                    yield row
                    continue
                doc_id = unicodedata.normalize("NFC", row.id)
                yield RawDocument(
                    mark, doc_id, self._uri(doc_id), row.text.encode("utf-8", "surrogatepass"),
                    None, format_, row.title, row.metadata,
                )  # fmt: skip

    def _uri(self, doc_id: str) -> str:
        return join(self.base_uri, doc_id) if self.base_uri else doc_id

    def _named(self) -> Iterator[ObjectInfo]:
        """What the list names, with the sidecars that are there."""
        keys = listed_keys(self._object_list or "", self._store.uri)
        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
            for start in range(0, len(keys), _ABSENT):
                for found in pool.map(self._with_sidecar, keys[start : start + _ABSENT]):
                    yield from found

    def _with_sidecar(self, key: str) -> list[ObjectInfo]:
        found = [retrying(lambda: self._store.info(key))]
        with contextlib.suppress(ObjectNotFound):  # most documents have none
            found.append(retrying(lambda: self._store.info(key + SIDECAR)))
        return found

    def _download(self, key: str, path: Path) -> None:
        path.unlink(missing_ok=True)  # of an attempt that failed
        self._store.download(key, path)

    def _read(self, info: ObjectInfo) -> bytes:
        if self._local is not None or info.size <= PART_BYTES:
            return retrying(lambda: self._store.read(info.key))[0]
        starts = range(0, info.size, PART_BYTES)

        def part(start: int) -> bytes:
            end = min(start + PART_BYTES, info.size)
            return retrying(lambda: self._store.read_range(info, start, end))

        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
            return b"".join(pool.map(part, starts))


def retrying(call: Callable[[], T]) -> T:
    """What `call` returns; it is tried again, a little later, where the store fails.

    An object that is not there, or not any more, is no failure of the store.
    """
    for pause in _PAUSES:
        try:
            return call()
        except (ObjectNotFound, ConditionFailed):
            raise
        except StorageError:
            time.sleep(pause)
    return call()

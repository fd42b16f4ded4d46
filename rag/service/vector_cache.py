"""Vectors of queries that were asked before, up to so many bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

from rag.models.embedder import EncodedQuery

ENTRY_BYTES = 400
"""What an entry costs beside its vector and its text: objects, dictionary, array header."""


class Key(NamedTuple):
    """What decides a query's vector: the encoder's digest, the prompt's kind, the text."""

    encoder: str
    prompt: str
    text: str


class VectorCache:
    """The least recently used entries leave when `max_bytes` are full; 0 keeps nothing.

    Safe to use from several threads. `hits`, `misses` and `evictions` count since the start.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[Key, EncodedQuery] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0
        self.evictions = 0

    @property
    def bytes(self) -> int:
        """About how much memory the entries take."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> EncodedQuery | None:
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._entries.move_to_end(key)
            return found

    def put(self, key: Key, encoded: EncodedQuery) -> None:
        """Keeps a copy, unless it alone is larger than the cache."""
        size = _size(key, encoded)
        if size > self._max_bytes:
            return
        # A row of a batch's array would keep the whole batch alive.
        kept = encoded._replace(vector=encoded.vector.copy())
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = kept
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._bytes -= _size(*self._entries.popitem(last=False))
                self.evictions += 1

    def clear(self, encoder: str | None = None) -> None:
        """Forgets everything, or all that one encoder made: at a swap to another generation."""
        with self._lock:
            gone = [key for key in self._entries if encoder in (None, key.encoder)]
            for key in gone:
                self._bytes -= _size(key, self._entries.pop(key))


def _size(key: Key, encoded: EncodedQuery) -> int:
    return ENTRY_BYTES + encoded.vector.nbytes + 4 * len(key.text)

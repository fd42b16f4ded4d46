"""What is evaluated, behind one protocol; here an index on this machine."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from eval.datasets import Dataset
from eval.results import TOP
from eval.runs import Run, ranking
from eval.vectors import Advance, VectorCache
from rag.index.protocol import Index
from rag.models.embedder import Embedder
from rag.retrieval.feedback import Asked
from rag.retrieval.fusion import DEFAULT as DEFAULT_FUSION
from rag.retrieval.ranking import DEPTH
from rag.retrieval.ranking import Ranker as RowRanker
from rag.retrieval.retriever import Retriever
from rag.types import NO_ROW, Float32, Hits, Int64, Mode, Query

_BATCH = 128
TIMED_TOP_K = 10
_WARM_UP = 5

Texts = dict[str, tuple[str, str]]
"""document id -> (title, text) of a passage of it."""


class Ranker(Protocol):
    """Ranks documents for queries.

    `system` says what is evaluated, for the result's reader. `rank` gives one run per mode for
    the data set's judged queries, and fills `texts` for the first passages of each. `time` gives
    milliseconds of each query, asked alone, one after the other.
    """

    @property
    def system(self) -> Mapping[str, Any]: ...

    def rank(
        self, dataset: Dataset, modes: Sequence[Mode], texts: Texts, advance: Advance
    ) -> dict[Mode, Run]: ...

    def time(self, queries: Sequence[str], mode: Mode) -> list[float]: ...


class IndexRanker:
    """An `Index` with its query encoder, searched as a `Retriever` of the same depth does."""

    def __init__(
        self,
        index: Index,
        embedder: Embedder,
        *,
        fusion: Mapping[str, Any] | None = None,
        depth: int = DEPTH,
        vectors: VectorCache | None = None,
    ) -> None:
        self._index = index
        self._embedder = embedder
        self._override = fusion
        self._reference = fusion or index.manifest.fusion or DEFAULT_FUSION
        self._ranker = RowRanker(index, depth=depth)
        self._depth = depth
        self._vectors = vectors or VectorCache(None, "")
        self._retriever = Retriever(index, embedder, depth=depth)
        self._doc_ids: dict[int, str] = {}

    @property
    def system(self) -> Mapping[str, Any]:
        manifest = self._index.manifest
        return {
            "version": manifest.version,
            "passages": manifest.counts["chunks"],
            "encoder": manifest.encoder["name"],
            "analyzer": manifest.analyzer,
            "dense": manifest.dense,
            "sparse": manifest.sparse,
            "fusion": dict(self._reference),
            "depth": self._depth,
        }

    def rank(
        self, dataset: Dataset, modes: Sequence[Mode], texts: Texts, advance: Advance
    ) -> dict[Mode, Run]:
        ids = dataset.judged()
        asked = [unicodedata.normalize("NFC", dataset.queries[q]) for q in ids]
        vectors = None
        if set(modes) - {Mode.SPARSE}:
            vectors = self._vectors.embed(self._embedder, "query", asked, advance)
        runs: dict[Mode, Run] = {mode: {} for mode in modes}
        for start in range(0, len(ids), _BATCH):
            part = slice(start, start + _BATCH)
            found = self._search(asked[part], None if vectors is None else vectors[part], modes)
            for mode, hits in found.items():
                self._collect(ids[part], hits, runs[mode], texts)
            advance("search", len(ids[part]), len(ids))
        return runs

    def time(self, queries: Sequence[str], mode: Mode) -> list[float]:
        top_k = min(TIMED_TOP_K, self._depth)

        def ask(text: str) -> None:
            self._retriever.search([Query(text, top_k, legs=mode, fusion=self._override)])

        return timed(ask, queries)

    def _search(
        self, texts: Sequence[str], vectors: Float32 | None, modes: Sequence[Mode]
    ) -> dict[Mode, Hits]:
        if vectors is None:
            asked = Asked(
                texts, np.zeros((len(texts), 0), np.float32), np.ones(len(texts), np.float32)
            )
        else:
            asked = Asked(texts, vectors, self._embedder.readable(texts))
        return {
            mode: self._ranker.rank(
                asked, top_k=self._depth, legs=mode, fusion=self._override
            ).ranking
            for mode in modes
        }

    def _collect(self, ids: Sequence[str], hits: Hits, run: Run, texts: Texts) -> None:
        self._learn(hits.rows)
        for query_id, rows, scores in zip(ids, hits.rows, hits.scores, strict=True):
            found = rows[rows != NO_ROW]
            run[query_id] = ranking(
                query_id, [self._doc_ids[row] for row in found.tolist()], scores[: found.size]
            )
        missing = [row for row in np.unique(hits.rows[:, :TOP]) if row != NO_ROW]
        missing = [row for row in missing if self._doc_ids[int(row)] not in texts]
        for chunk in self._index.chunks(np.array(missing, dtype=np.int64)):
            texts.setdefault(chunk.doc_id, (chunk.title, chunk.text))

    def _learn(self, rows: Int64) -> None:
        """Looks up the documents of rows that were not seen before."""
        new = [row for row in np.unique(rows).tolist() if row not in self._doc_ids]
        new = [row for row in new if row != NO_ROW]
        chunks = self._index.chunks(np.array(new, dtype=np.int64))
        self._doc_ids.update((row, chunk.doc_id) for row, chunk in zip(new, chunks, strict=True))


class Seen(NamedTuple):
    """One passage of a reply, as far as a ranker looks at it."""

    doc_id: str
    score: float
    title: str
    text: str


def rank_one_by_one(
    dataset: Dataset,
    modes: Sequence[Mode],
    ask: Callable[[str, Mode], Sequence[Seen]],
    texts: Texts,
    advance: Advance,
) -> dict[Mode, Run]:
    """What `Ranker.rank` gives, by a function that answers one query at a time, best first."""
    ids = dataset.judged()
    runs: dict[Mode, Run] = {mode: {} for mode in modes}
    for query_id in ids:
        for mode in modes:
            passages = ask(dataset.queries[query_id], mode)
            scores = np.array([passage.score for passage in passages], dtype=np.float32)
            found = [passage.doc_id for passage in passages]
            runs[mode][query_id] = ranking(query_id, found, scores)
            for passage in passages[:TOP]:
                texts.setdefault(passage.doc_id, (passage.title, passage.text))
        advance("search", 1, len(ids))
    return runs


def timed(ask: Any, queries: Sequence[str]) -> list[float]:
    """Milliseconds of each call; a few calls first are not counted."""
    for text in queries[:_WARM_UP]:
        ask(text)
    found = []
    for text in queries:
        started = time.perf_counter()
        ask(text)
        found.append((time.perf_counter() - started) * 1e3)
    return found

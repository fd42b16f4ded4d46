"""nDCG@10 of LangChain's EnsembleRetriever against this project's legs and hybrid, in one table.

The ensemble is the one of LangChain's documentation: BM25Retriever and a FAISS vector store with
equal weights, over the same encoder and the same passages. Each of its two retrievers returns
`--depth` passages; with LangChain's own default, 4, they could not fill a top ten.

It needs packages that nothing else here needs:

    pip install langchain-classic langchain-community rank-bm25
    python tests/bench/langchain_ensemble.py --data DIR [DIR …]

`--data` names folders in BEIR's layout. `--vectors FOLDER` reads NAME.npz there (D: passages, Q:
queries; float32, normalised, in the order of the files) instead of embedding.
"""

from __future__ import annotations

import argparse
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from langchain_classic.retrievers import EnsembleRetriever
from langchain_community.retrievers import BM25Retriever
from langchain_community.vectorstores import FAISS
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever

from eval.collection import IndexOptions, build_collection
from eval.datasets import Dataset, load_beir
from eval.measures import means, per_query
from eval.rankers import IndexRanker
from eval.runs import Run, ranking
from eval.vectors import LazyEmbedder, VectorCache
from rag.types import Float32, Mode

MEASURE = "nDCG@10"
THEIRS = ("BM25Retriever", "FAISS", "Ensemble", "Ensemble by id")
COLUMNS = (*THEIRS, "sparse", "dense", "hybrid")


class OneEncoder(Embeddings):
    """One encoder for both sides: an `Embedder` to us, `Embeddings` to LangChain. Each text is
    embedded once.
    """

    def __init__(self, embedder: LazyEmbedder) -> None:
        self._embedder = embedder
        self._passages: dict[str, Float32] = {}
        self._queries: dict[str, Float32] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)

    def learn(self, dataset: Dataset, file: Path) -> None:
        """Takes over vectors that were made before."""
        with np.load(file, allow_pickle=False) as known:
            passages, queries = known["D"], known["Q"]
        texts = [_key(line.passage) for line in dataset.corpus()]
        self._passages.update(zip(texts, passages, strict=True))
        self._queries.update(zip(map(_key, dataset.queries.values()), queries, strict=True))

    def embed_passages(self, texts: Sequence[str]) -> Float32:
        return _embed(texts, self._passages, self._embedder.embed_passages)

    def embed_queries(self, texts: Sequence[str]) -> Float32:
        return _embed(texts, self._queries, self._embedder.embed_queries)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed_passages(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed_queries([text])[0].tolist()


def _key(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _embed(
    texts: Sequence[str], known: dict[str, Float32], embed: Callable[[Sequence[str]], Float32]
) -> Float32:
    keys = [_key(text) for text in texts]
    new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if new:
        known.update(zip(new, embed(list(new.values())), strict=True))
    return np.stack([known[key] for key in keys])


def theirs(dataset: Dataset, encoder: OneEncoder, depth: int) -> dict[str, Run]:
    """Runs of the two retrievers and of the ensemble over both, as documented and with `id_key`."""
    documents = [
        Document(unicodedata.normalize("NFC", line.passage), metadata={"doc_id": line.doc_id})
        for line in dataset.corpus()
    ]
    bm25 = BM25Retriever.from_documents(documents)
    bm25.k = depth
    faiss = FAISS.from_documents(documents, encoder).as_retriever(search_kwargs={"k": depth})
    both = {"retrievers": [bm25, faiss], "weights": [0.5, 0.5]}
    ensembles = EnsembleRetriever(**both), EnsembleRetriever(**both, id_key="doc_id")
    retrievers = zip(THEIRS, (bm25, faiss, *ensembles), strict=True)
    return {name: _run(dataset, retriever) for name, retriever in retrievers}


def _run(dataset: Dataset, retriever: BaseRetriever) -> Run:
    run: Run = {}
    for query_id in dataset.judged():
        text = unicodedata.normalize("NFC", dataset.queries[query_id])
        ids = [document.metadata["doc_id"] for document in retriever.invoke(text)]
        scores = np.arange(len(ids), 0, -1, dtype=np.float32)  # their order is what they say
        run[query_id] = ranking(query_id, ids, scores)
    return run


def ours(dataset: Dataset, encoder: OneEncoder, folder: Path) -> dict[str, Run]:
    """Runs of both legs and of the default hybrid."""
    cache = VectorCache(None, encoder.runs_as)
    collection = build_collection(
        dataset, folder, encoder, IndexOptions(), vectors=cache, advance=_quietly
    )
    ranker = IndexRanker(collection, encoder, vectors=cache)
    runs = ranker.rank(dataset, (Mode.SPARSE, Mode.DENSE, Mode.HYBRID), {}, _quietly)
    return {str(mode): run for mode, run in runs.items()}


def _quietly(stage: str, done: int, total: int) -> None:
    """Progress that is not shown."""


def main() -> None:
    options = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    options.add_argument("--data", type=Path, nargs="+", required=True, help="BEIR folders")
    options.add_argument("--vectors", type=Path, help="folder of NAME.npz")
    options.add_argument("--depth", type=int, default=100, help="passages of each retriever")
    given = options.parse_args()
    print(f"| {MEASURE} | " + " | ".join(COLUMNS) + " |", flush=True)
    print("|---|" + "---|" * len(COLUMNS), flush=True)
    for folder in given.data:
        dataset = load_beir(folder)
        with tempfile.TemporaryDirectory() as place:
            encoder = OneEncoder(LazyEmbedder("default", exports=Path(place) / "exports"))
            if given.vectors is not None:
                encoder.learn(dataset, given.vectors / f"{dataset.name}.npz")
            index = Path(place) / "index"
            index.mkdir()
            runs = theirs(dataset, encoder, given.depth) | ours(dataset, encoder, index)
            scores = [means(per_query(runs[c], dataset.qrels, [MEASURE]))[MEASURE] for c in COLUMNS]
        cells = " | ".join(f"{score:.4f}" for score in scores)
        print(f"| {dataset.name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()

"""One peer behind FastAPI, as its own documentation builds hybrid search. Runs in the peers' venv.

    python tests/bench/peer_server.py NAME --corpus FILE --vectors FILE --model DIR --port N

`--corpus` is BEIR's corpus.jsonl, `--vectors` its passages' vectors (.npy, in that order), made
once so that every peer has the same; queries are embedded by the peer, with the model at `--model`.
POST /invocations takes {"query"} and answers {"ids"}, ten of them; GET /ping answers once it is
ready. `--tuned` gives PyTorch as many threads as there are processors for one request, and lets
one request at a time into the peer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOP = 10
DEPTH = 100
"""Candidates of each leg, where a peer has such an option."""
Search = Callable[[str], list[str]]
Corpus = list[tuple[str, str]]
"""(id, passage) of each document."""


def langchain(corpus: Corpus, vectors: Any, model: str) -> Search:
    """EnsembleRetriever over BM25Retriever and FAISS, equal weights."""
    from langchain_classic.retrievers import EnsembleRetriever
    from langchain_community.retrievers import BM25Retriever
    from langchain_community.vectorstores import FAISS
    from langchain_huggingface import HuggingFaceEmbeddings

    metadata = [{"id": doc_id} for doc_id, _ in corpus]
    texts = [text for _, text in corpus]
    keywords = BM25Retriever.from_texts(texts, metadatas=metadata)
    keywords.k = TOP
    pairs = list(zip(texts, vectors.tolist(), strict=True))
    store = FAISS.from_embeddings(pairs, HuggingFaceEmbeddings(model_name=model), metadata)
    both = [keywords, store.as_retriever(search_kwargs={"k": TOP})]
    ensemble = EnsembleRetriever(retrievers=both, weights=[0.5, 0.5], id_key="id")
    return lambda query: [found.metadata["id"] for found in ensemble.invoke(query)]


def haystack(corpus: Corpus, vectors: Any, model: str) -> Search:
    """A pipeline of both in-memory retrievers and a joiner by reciprocal rank."""
    from haystack import Document, Pipeline
    from haystack.components.joiners import DocumentJoiner
    from haystack.components.retrievers.in_memory import (
        InMemoryBM25Retriever,
        InMemoryEmbeddingRetriever,
    )
    from haystack.document_stores.in_memory import InMemoryDocumentStore
    from haystack_integrations.components.embedders.sentence_transformers import (
        SentenceTransformersTextEmbedder,
    )

    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents(
        [
            Document(content=text, embedding=vector, meta={"id": doc_id})
            for (doc_id, text), vector in zip(corpus, vectors.tolist(), strict=True)
        ]
    )
    pipeline = Pipeline()
    embedder = SentenceTransformersTextEmbedder(model=model, progress_bar=False)
    pipeline.add_component("text_embedder", embedder)
    pipeline.add_component("embedding", InMemoryEmbeddingRetriever(store, top_k=DEPTH))
    pipeline.add_component("bm25", InMemoryBM25Retriever(store, top_k=DEPTH))
    pipeline.add_component("joiner", DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=TOP))
    pipeline.connect("text_embedder", "embedding")
    pipeline.connect("bm25", "joiner")
    pipeline.connect("embedding", "joiner")
    pipeline.warm_up()

    def search(query: str) -> list[str]:
        reply = pipeline.run({"text_embedder": {"text": query}, "bm25": {"query": query}})
        return [document.meta["id"] for document in reply["joiner"]["documents"]]

    return search


def txtai(corpus: Corpus, vectors: Any, model: str) -> Search:
    """Embeddings with `hybrid`; the vectors come through its external transform."""
    import numpy as np
    from sentence_transformers import SentenceTransformer
    from txtai import Embeddings

    encoder = SentenceTransformer(model)
    known = {text: vector for (_, text), vector in zip(corpus, vectors, strict=True)}

    def transform(texts: list[str]) -> Any:
        if all(text in known for text in texts):
            return np.stack([known[text] for text in texts])
        return encoder.encode(texts)

    embeddings = Embeddings(method="external", transform=transform, hybrid=True)
    embeddings.index((doc_id, text, None) for doc_id, text in corpus)
    return lambda query: [doc_id for doc_id, _ in embeddings.search(query, TOP)]


def lancedb(corpus: Corpus, vectors: Any, model: str) -> Search:
    """A table with a full-text index; hybrid queries, reranked by reciprocal rank."""
    import lancedb
    from lancedb.rerankers import RRFReranker
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model)
    database = lancedb.connect(tempfile.mkdtemp())
    rows = [
        {"id": doc_id, "text": text, "vector": vector}
        for (doc_id, text), vector in zip(corpus, vectors.tolist(), strict=True)
    ]
    table = database.create_table("passages", rows)
    table.create_fts_index("text")
    reranker = RRFReranker()

    def search(query: str) -> list[str]:
        asked = table.search(query_type="hybrid").vector(encoder.encode(query)).text(query)
        return [row["id"] for row in asked.rerank(reranker).limit(TOP).to_list()]

    return search


def plain(corpus: Corpus, vectors: Any, model: str) -> Search:
    """bm25s, a flat FAISS index and SentenceTransformer, fused by reciprocal rank."""
    import bm25s
    import faiss
    import Stemmer
    from sentence_transformers import SentenceTransformer

    encoder, stemmer = SentenceTransformer(model), Stemmer.Stemmer("english")
    keywords = bm25s.BM25()
    texts = [text for _, text in corpus]
    keywords.index(bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False))
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)

    def search(query: str) -> list[str]:
        terms = bm25s.tokenize(query, stopwords="en", stemmer=stemmer, show_progress=False)
        rows, _ = keywords.retrieve(terms, k=DEPTH, show_progress=False)
        _, near = index.search(encoder.encode([query], normalize_embeddings=True), DEPTH)
        scores: dict[int, float] = {}
        for ranking in (rows[0].tolist(), near[0].tolist()):
            for rank, row in enumerate(ranking, start=1):
                scores[row] = scores.get(row, 0.0) + 1.0 / (60 + rank)
        best = sorted(scores, key=lambda row: -scores[row])[:TOP]
        return [corpus[row][0] for row in best]

    return search


PEERS = {
    "langchain": langchain,
    "haystack": haystack,
    "txtai": txtai,
    "lancedb": lancedb,
    "plain": plain,
}


def read(path: Path) -> Corpus:
    with path.open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    return [
        (d["_id"], f"{d['title']}\n{d['text']}" if d.get("title") else d["text"]) for d in found
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    options.add_argument("name", choices=list(PEERS))
    options.add_argument("--corpus", type=Path, required=True)
    options.add_argument("--vectors", type=Path, required=True)
    options.add_argument("--model", required=True)
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--tuned", action="store_true")
    given = options.parse_args()
    import numpy as np
    import torch
    import uvicorn
    from fastapi import FastAPI

    if given.tuned:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    door: Any = threading.Semaphore(1) if given.tuned else contextlib.nullcontext()
    search = PEERS[given.name](read(given.corpus), np.load(given.vectors), given.model)
    search("warm up")

    app = FastAPI()

    @app.get("/ping")
    def ping() -> dict[str, Any]:
        return {}

    @app.post("/invocations")
    def invocations(asked: dict[str, Any]) -> dict[str, Any]:
        with door:
            return {"ids": search(asked["query"])[:TOP]}

    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="error")


if __name__ == "__main__":
    main()

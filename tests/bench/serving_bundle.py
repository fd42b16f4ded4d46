"""A bundle of real passages, large enough to measure a service with.

    python tests/bench/serving_bundle.py --data DIR --folder FOLDER

`--data` has `scale/msdocs-en.jsonl.gz` (`_id`, `title`, `text`) and, for Korean,
`scale/msdocs-ko.jsonl.gz`. Embedding everything would take over an hour on two cores: `--embedded`
passages, the shortest ones, are embedded, by the int8 export; the vectors of the others are drawn
near them (see `draw`). The text, the sparse leg and the store are those of the passages themselves.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from indexer.exports import prepare_encoder
from rag import __version__
from rag.index.analyzer import Analyzer, make_analyzer
from rag.index.chunk_files import DocumentRecord, write_chunks
from rag.index.dense import build_chosen
from rag.index.manifest import FORMAT, Manifest, chunks_digest, version_id
from rag.index.seal import inventory, write_manifest
from rag.index.sparse import build_sparse
from rag.models.embedder import Embedder
from rag.models.encoder import EncoderConfig, reference, resolve
from rag.models.load import load_embedder
from rag.retrieval.fusion import DEFAULT
from rag.types import Chunk, Float32

PASSAGES = 100_000
EMBEDDED = 10_000
AT_ONCE = 1000
COSINE = 0.9
"""Of a drawn vector with the embedded one that it lies near."""


def read_passages(path: Path, count: int) -> list[tuple[str, Chunk]]:
    """`count` passages, evenly spaced over the file, as (id, chunk) by ascending id."""
    with gzip.open(path, "rb") as lines:
        total = sum(1 for _ in lines)
    step = max(1, total // count)
    made: dict[str, Chunk] = {}
    ends: Counter[str] = Counter()
    with gzip.open(path, "rb") as lines:
        for line in islice(lines, 0, step * count, step):
            passage = orjson.loads(line)
            doc_id = passage["_id"].rpartition("#")[0]
            start = ends[doc_id]
            ends[doc_id] += len(passage["text"]) + 2
            chunk = Chunk(
                doc_id=doc_id, uri=f"https://docs.example/{doc_id}", title=passage["title"][:200],
                text=passage["text"], start=start, end=start + len(passage["text"]),
                context=passage["title"][:200], lang=path.name[7:9], format="markdown",
            )  # fmt: skip
            made[chunk.chunk_id] = chunk
    return sorted(made.items())


def one_record_a_document(passages: list[tuple[str, Chunk]]) -> dict[str, DocumentRecord]:
    records: dict[str, DocumentRecord] = {}
    for _, chunk in passages:
        records.setdefault(
            chunk.doc_id,
            DocumentRecord(chunk.doc_id, chunk.uri, chunk.title, chunk.lang, chunk.format),
        )
    return records


def draw(known: Float32, count: int, rng: np.random.Generator) -> Float32:
    """`count` unit vectors: the known ones first, then each near a known one, at COSINE."""
    drawn = np.empty((count, known.shape[1]), dtype=np.float32)
    drawn[: len(known)] = known
    for start in range(len(known), count, 8192):
        near = known[rng.integers(len(known), size=min(8192, count - start))]
        aside = rng.normal(size=near.shape).astype(np.float32)
        aside -= (aside * near).sum(axis=1, keepdims=True) * near
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        drawn[start : start + len(near)] = COSINE * near + (1 - COSINE**2) ** 0.5 * aside
    return drawn


def embed(
    encoder: Path, passages: list[tuple[str, Chunk]], count: int, kept: Path
) -> tuple[Float32, list[int]]:
    """Vectors of the `count` shortest passages and their rows, ascending; kept in a folder, part by
    part, so that a run that was cut off goes on.
    """
    short = sorted(range(len(passages)), key=lambda row: len(passages[row][1].indexed_text))
    rows = sorted(short[:count])
    kept.mkdir(parents=True, exist_ok=True)
    embedder: Embedder | None = None
    for start in range(0, count, AT_ONCE):
        part = kept / f"{start}.npy"
        if part.is_file():
            continue
        embedder = embedder or load_embedder(encoder, precision="int8")
        texts = [passages[row][1].indexed_text for row in rows[start : start + AT_ONCE]]
        np.save(part, embedder.embed_passages(texts))
    parts = [np.load(kept / f"{start}.npy") for start in range(0, count, AT_ONCE)]
    return np.concatenate(parts), rows


def build(
    folder: Path, data: Path, *, lang: str = "en", passages: int = PASSAGES,
    embedded: int = EMBEDDED, dense: dict[str, Any] | None = None,
) -> Path:  # fmt: skip
    """The sealed bundle below `folder`; built where it is not there yet."""
    dense = dense or {"kind": "auto"}
    name = "-".join([lang, str(passages), str(embedded), *(str(v) for v in dense.values())])
    target = folder / name
    if (target / "manifest.json").is_file():
        return target
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    source = resolve("default")
    config = EncoderConfig.read(source)
    measured = prepare_encoder(
        source, target / "encoder", config, safetensors=False, cache=folder / "encoders"
    )
    chunks = read_passages(data / "scale" / f"msdocs-{lang}.jsonl.gz", passages)
    embedded = min(embedded, len(chunks))
    kept = folder / f"{lang}-{passages}-{embedded}-vectors"
    known, rows = embed(target / "encoder", chunks, embedded, kept)
    vectors = np.empty((len(chunks), known.shape[1]), dtype=np.float32)
    others = np.setdiff1d(np.arange(len(chunks)), rows)
    drawn = draw(known, len(chunks), np.random.default_rng(7))
    vectors[rows], vectors[others] = drawn[:embedded], drawn[embedded:]
    return write_bundle(target, chunks, vectors, dense, config, measured)


def write_bundle(
    target: Path, chunks: list[tuple[str, Chunk]], vectors: Float32, dense: dict[str, Any],
    config: EncoderConfig, measured: dict[str, Any],
) -> Path:  # fmt: skip
    """Writes and seals what goes with the encoder that lies in `target`; chunks by ascending id."""
    records = one_record_a_document(chunks)
    write_chunks(target, sorted(records.values(), key=lambda r: r.doc_id), iter(chunks))
    built, chosen, _ = build_chosen(target, vectors, **dense)
    analyzer = make_analyzer("auto")
    terms = (
        found
        for start in range(0, len(chunks), 512)
        for found in analyzer.batch([c.indexed_text for _, c in chunks[start : start + 512]])
    )
    sparse = build_sparse(target, terms, weight=analyzer.weight)
    digest = chunks_digest(chunk_id for chunk_id, _ in chunks)
    seal(
        target, digest, config, analyzer, dense=built, sparse=sparse, chunks=len(chunks),
        documents=len(records), measured={"encoder": measured, "dense": chosen},
    )  # fmt: skip
    return target


def seal(
    target: Path, digest: str, config: EncoderConfig, analyzer: Analyzer, *,
    dense: dict[str, Any], sparse: dict[str, Any], chunks: int, documents: int,
    measured: dict[str, Any] | None = None,
) -> Manifest:  # fmt: skip
    """Seals what lies in `target`: `dense` and `sparse` as their builds returned them, `digest` of
    the chunk ids, `measured` as manifests have it.
    """
    (target / "report.json").write_bytes(b'{"skipped":[]}\n')
    references = {
        "encoder": reference(config), "analyzer": analyzer.reference(), "chunker": {},
        "dense": dense, "sparse": sparse, "fusion": dict(DEFAULT),
    }  # fmt: skip
    parts = json.loads(json.dumps(references))
    counts = {
        "documents": documents, "chunks": chunks, "skipped": 0,
        "terms": int(sparse["counts"]["terms"]),
    }  # fmt: skip
    manifest = Manifest(
        version=version_id(digest, format=FORMAT, **parts), chunks_digest=digest, counts=counts,
        files=inventory(target), measured=measured or {},
        program=f"rag-containers {__version__}", **parts,
    )  # fmt: skip
    write_manifest(target, manifest)
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="kept between runs")
    parser.add_argument("--lang", choices=["en", "ko"], default="en")
    parser.add_argument("--passages", type=int, default=PASSAGES)
    parser.add_argument("--embedded", type=int, default=EMBEDDED)
    parser.add_argument("--kind", choices=["auto", "flat", "hnsw"], default="auto")
    given = parser.parse_args()
    began = time.monotonic()
    made = build(
        given.folder, given.data, lang=given.lang, passages=given.passages,
        embedded=given.embedded, dense={"kind": given.kind},
    )  # fmt: skip
    print(made, f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

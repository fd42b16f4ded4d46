"""A bundle of ten million passages in minutes, to measure a service with.

A passage is three sentences of the sample documents, drawn at random, so its text and its terms are
real and hardly two are the same. Its vector is the mean of its sentences' own, which are embedded,
moved by a random direction to a cosine of 0.9. Passages are shorter than those of most corpora
(some 300 characters and 25 terms), and their terms fewer, so that each is in many of them.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from gpu_floors import Floors, Line
from gpu_model import SAMPLE, encoder_folder, load
from serving_bundle import COSINE, seal

from rag.devices import CPU, number_of
from rag.index.analyzer import make_analyzer
from rag.index.bm25 import TermCounts, count_terms
from rag.index.chunk_files import (
    CHUNKS_PER_BATCH,
    DocumentRecord,
    write_chunk_columns,
    write_documents,
)
from rag.index.dense import DenseLeg, build_dense
from rag.index.dense.gpu_build import has_cagra
from rag.index.dense.sample import recall, take_sample
from rag.index.manifest import packed_digest
from rag.index.sparse import write_sparse
from rag.models.encoder import EncoderConfig
from rag.models.threads import usable_cpus
from rag.sentences import split_sentences
from rag.types import Float32

PASSAGES = 10_000_000
SMALL_PASSAGES = 3_000
SMALL_POOL = 200
SENTENCES = 3
"""Of one passage."""
PER_DOCUMENT = 50
ROWS_AT_ONCE = 65_536
KINDS: dict[str, dict[str, Any]] = {
    "flat": {"kind": "flat", "storage": "float16"},
    "ivf": {"kind": "ivf", "storage": "float16"},
    "cagra": {"kind": "hnsw", "storage": "float32"},
}


def bundle(options: argparse.Namespace, _: Floors) -> Iterator[Line]:
    """Makes it, with the seconds of each stage, unless it is there."""
    target = bundle_folder(options)
    if (target / "manifest.json").is_file():
        return
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    yield from write(target, options)


def bundle_folder(options: argparse.Namespace) -> Path:
    return Path(options.work, f"bundle-{rows_of(options)}-{index_of(options)}")


def rows_of(options: argparse.Namespace) -> int:
    return int(options.passages or (SMALL_PASSAGES if options.small else PASSAGES))


def index_of(options: argparse.Namespace) -> str:
    """CAGRA where it can be built, else a flat one: the fastest to build."""
    return str(options.index or ("cagra" if options.device != CPU and has_cagra() else "flat"))


def write(target: Path, options: argparse.Namespace) -> Iterator[Line]:
    rows = rows_of(options)
    rng = np.random.default_rng(rows)
    began = time.perf_counter()

    def took(what: str) -> Line:
        nonlocal began
        seconds, began = time.perf_counter() - began, time.perf_counter()
        return {"what": f"{rows:,} passages: {what}", "value": seconds, "unit": "s", "of": ""}

    pool = sentences()[: SMALL_POOL if options.small else None]
    embedded = load(options, "float32").embed_passages(pool)
    drawn = rng.integers(len(pool), size=(rows, SENTENCES), dtype=np.int32)
    yield took("encoder, sentences embedded")
    ids = write_text(target, pool, drawn, rng)
    yield took("text written")
    analyzer = make_analyzer("cjk")
    known = count_terms(analyzer.batch(pool))
    sparse = write_sparse(target, partial(count_drawn, known, drawn), weight=analyzer.weight)
    yield took("sparse leg")
    vectors = draw_vectors(embedded, drawn)
    yield took("vectors drawn")
    gpus = [] if options.device == CPU else [number_of(options.device) or 0]
    dense = build_dense(
        target, vectors, threads=usable_cpus(), gpus=gpus, **KINDS[index_of(options)]
    )
    yield took(f"dense leg, {index_of(options)}")
    if index_of(options) != "flat":
        leg = DenseLeg.open(target, dense, threads=usable_cpus())
        found = recall(leg, take_sample(vectors, threads=usable_cpus()), 10)
        what = f"{rows:,} passages: recall@10 on the CPU of what was built"
        yield {"what": what, "value": found, "unit": "", "of": "exact search"}
        del leg
    del vectors
    shutil.copytree(encoder_folder(options.work), target / "encoder")
    began = time.perf_counter()
    manifest = seal(
        target, packed_digest([ids.tobytes()]), EncoderConfig.read(target / "encoder"), analyzer,
        dense=dense, sparse=sparse, chunks=rows, documents=-(-rows // PER_DOCUMENT),
    )  # fmt: skip
    yield took("hashed and sealed")
    size = sum(entry.size for entry in manifest.files.values())
    what = f"{rows:,} passages: on disk"
    yield {"what": what, "value": size / 2**30, "unit": "GiB", "of": ""}


def sentences() -> list[str]:
    """Those of the sample's English documents, each once."""
    found = set()
    for file in sorted(SAMPLE.rglob("*.md")):
        text = file.read_text("utf-8")
        found.update(" ".join(text[a:b].split()) for a, b in split_sentences(text))
    return sorted(text for text in found if text.isascii() and 40 <= len(text) <= 300)


def write_text(target: Path, pool: list[str], drawn: Any, rng: np.random.Generator) -> Any:
    """Chunks and their documents; the ids, uint8 (rows, 16), ascending."""
    rows = len(drawn)
    write_documents(
        target,
        (
            DocumentRecord(f"{i:08}", f"https://docs.example/{i}", f"Part {i}", "en", "markdown")
            for i in range(-(-rows // PER_DOCUMENT))
        ),
    )
    ids = rng.integers(256, size=(rows, 16), dtype=np.uint8)
    ids[:, :8] = np.arange(rows, dtype=">u8").view(np.uint8).reshape(rows, 8)
    texts, space = pa.array(pool, pa.large_string()), pa.scalar(" ", pa.large_string())
    lengths = np.array([len(text) for text in pool], dtype=np.int32)
    ends = lengths[drawn].sum(axis=1, dtype=np.int32) + SENTENCES - 1
    row = np.arange(rows, dtype=np.int32)

    def batches() -> Iterator[dict[str, Any]]:
        for start in range(0, rows, CHUNKS_PER_BATCH):
            part = slice(start, min(start + CHUNKS_PER_BATCH, rows))
            count = part.stop - start
            packed = pa.py_buffer(ids[part].tobytes())
            columns = [texts.take(pa.array(column)) for column in drawn[part].T]
            yield {
                "chunk_id": pa.Array.from_buffers(pa.binary(16), count, [None, packed]),
                "doc": row[part] // PER_DOCUMENT,
                "page": pa.nulls(count, pa.int32()),
                "start": row[part] % PER_DOCUMENT * 1000,
                "end": row[part] % PER_DOCUMENT * 1000 + ends[part],
                "headings": [[]] * count,
                "context": [""] * count,
                "text": pc.binary_join_element_wise(*columns, space),
            }

    write_chunk_columns(target, batches())
    return ids


def count_drawn(pool: TermCounts, drawn: Any) -> TermCounts:
    """The terms of passages from those of their sentences."""
    indptr = np.zeros(len(pool.sizes) + 1, dtype=np.int64)
    np.cumsum(pool.sizes, out=indptr[1:])
    most = int(pool.sizes[drawn].sum(dtype=np.int64))
    terms, counts = np.empty(most, dtype=np.int32), np.empty(most, dtype=np.int32)
    sizes = np.empty(len(drawn), dtype=np.int32)
    args = (indptr, pool.terms, pool.counts, drawn, len(pool.vocabulary), terms, counts, sizes)
    used = _join(*args)
    lengths = pool.lengths[drawn].sum(axis=1, dtype=np.int32)
    return TermCounts(pool.vocabulary, terms[:used], counts[:used], sizes, lengths)


@numba.njit(cache=True)
def _join(
    indptr: Any, pool_terms: Any, pool_counts: Any, drawn: Any, vocabulary: int,
    terms: Any, counts: Any, sizes: Any,
) -> int:  # fmt: skip
    """Fills `terms`, `counts` and `sizes`; a term of several sentences stands once."""
    place = np.full(vocabulary, -1, dtype=np.int64)
    used = 0
    for row in range(drawn.shape[0]):
        first = used
        for sentence in drawn[row]:
            for i in range(indptr[sentence], indptr[sentence + 1]):
                term = pool_terms[i]
                at = place[term]
                if at < first:
                    place[term] = at = used
                    terms[at], counts[at] = term, 0
                    used += 1
                counts[at] += pool_counts[i]
        sizes[row] = used - first
    return used


def draw_vectors(embedded: Float32, drawn: Any) -> Float32:
    """float32 (rows, d), norm 1, drawn in blocks on all CPUs; the same for the same arguments."""
    rows, dimension = len(drawn), embedded.shape[1]
    vectors = np.empty((rows, dimension), dtype=np.float32)

    def fill(start: int) -> None:
        block = vectors[start : start + ROWS_AT_ONCE]
        near = embedded[drawn[start : start + ROWS_AT_ONCE]].sum(axis=1)
        near /= np.linalg.norm(near, axis=1, keepdims=True)
        np.random.default_rng([rows, start]).standard_normal(out=block, dtype=np.float32)
        block -= np.einsum("ij,ij->i", block, near)[:, None] * near
        block *= ((1 - COSINE**2) ** 0.5 / np.linalg.norm(block, axis=1))[:, None]
        block += COSINE * near

    with ThreadPoolExecutor(usable_cpus()) as pool:
        list(pool.map(fill, range(0, rows, ROWS_AT_ONCE)))
    return vectors

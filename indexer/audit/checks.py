"""One bundle's manifest, files, passages, both legs and encoder, reconciled with each other."""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from rag.errors import BundleError, ConfigurationError
from rag.index.analyzer import analyzer_from_reference
from rag.index.bundle import ENCODER
from rag.index.chunks import ID_BYTES, ChunkStore
from rag.index.dense import DenseLeg
from rag.index.manifest import Manifest, chunks_digest
from rag.index.seal import file_problems
from rag.index.sparse import SparseLeg
from rag.models.golden import check_golden, required_cosine
from rag.models.load import load_embedder
from rag.types import Int64

MANIFEST, CHUNKS, DENSE, SPARSE = "manifest", "chunks", "dense", "sparse"
_BLOCK = 1024
_NEARER = 0.05
"""A passage's own vector may be so much farther from its text than another's, for rounding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: in which part, in which file ('' if in none alone), and what."""

    part: str
    file: str
    problem: str


def check_bundle(folder: Path, manifest: Manifest, *, sample: int) -> list[Finding]:
    """Everything that is wrong with the bundle in `folder`, most basic first.

    Every byte is hashed and every chunk id computed anew. `sample` passages, spread evenly, are
    embedded and analysed again and compared with their rows of both legs.
    """
    findings = [
        Finding(part_of(name), name, problem)
        for name, problem in file_problems(folder, manifest).items()
    ]
    broken = {finding.part for finding in findings}
    steps: dict[str, Callable[[], Iterator[Finding]]] = {
        CHUNKS: lambda: _check_chunks(folder, manifest),
        SPARSE: lambda: _check_sparse(folder, manifest, sample),
        ENCODER: lambda: _check_encoder(folder, manifest),
        DENSE: lambda: _check_dense(folder, manifest, sample),
    }
    for part, step in steps.items():
        needs = {part, CHUNKS} | ({ENCODER} if part == DENSE else set())
        if needs & broken:
            continue
        try:
            found = list(step())
        except (BundleError, ConfigurationError, IndexError) as error:
            found = [Finding(part, "", str(error))]
        findings += found
        broken |= {finding.part for finding in found}
    return findings


def part_of(name: str) -> str:
    """The part of a bundle that a file belongs to."""
    head = name.split("/")[0]
    return CHUNKS if head in ("chunks.arrow", "documents.arrow") else head


def sample_rows(rows: int, sample: int) -> Int64:
    """`sample` rows, or all if there are fewer, spread evenly: int64, ascending."""
    return np.unique(np.linspace(0, max(rows - 1, 0), min(sample, rows)).astype(np.int64))


def all_ids(store: ChunkStore) -> Iterator[str]:
    """Every chunk id in row order."""
    for block in store.packed_ids():
        yield from hexlify(block, "\n", ID_BYTES).decode().split()


def _check_chunks(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    store = ChunkStore.open(folder)
    ids = list(all_ids(store))
    if chunks_digest(ids) != manifest.chunks_digest:
        yield Finding(CHUNKS, "chunks.arrow", "it holds other passages than the manifest says")
    if any(a >= b for a, b in pairwise(ids)):
        yield Finding(CHUNKS, "chunks.arrow", "its rows are not in ascending order of chunk id")
    for name, count in (("chunks", store.rows), ("documents", store.documents)):
        if manifest.counts[name] != count:
            yield Finding(
                CHUNKS, "", f"the manifest counts {manifest.counts[name]} {name}, there are {count}"
            )
    without = {record.doc_id for record in store.records()}
    wrong = 0
    for start in range(0, store.rows, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, store.rows))
        for row, chunk in zip(rows.tolist(), store.chunks(rows), strict=True):
            wrong += replace(chunk).chunk_id != ids[row]  # a copy computes its id anew
            without.discard(chunk.doc_id)
    if wrong:
        yield Finding(CHUNKS, "", f"{wrong} chunk ids do not follow from what their chunks are")
    if without:
        yield Finding(CHUNKS, "", f"{len(without)} documents have no chunk, as {min(without)}")


def _check_sparse(folder: Path, manifest: Manifest, sample: int) -> Iterator[Finding]:
    store = ChunkStore.open(folder)
    leg = SparseLeg.open(folder, manifest.sparse)
    if leg.rows != store.rows:
        yield Finding(SPARSE, "", f"it has {leg.rows} rows, there are {store.rows} passages")
        return
    analyzer = analyzer_from_reference(manifest.analyzer)
    rows = sample_rows(store.rows, sample)
    texts = [chunk.indexed_text for chunk in store.chunks(rows)]
    stored = leg.passage_terms(rows)
    wanted = leg.query_terms(list(analyzer.batch(texts)))
    wrong = sum(
        set(stored.terms[stored.starts[i] : stored.ends[i]].tolist())
        != set(wanted.terms[wanted.starts[i] : wanted.starts[i + 1]].tolist())
        for i in range(len(rows))
    )
    if wrong:
        yield Finding(SPARSE, "", f"{wrong} of {len(rows)} rows do not hold their passages' terms")


def _check_encoder(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    embedder = load_embedder(folder / ENCODER)
    try:
        least = required_cosine("float32", manifest.measured["encoder"])
        check_golden(embedder, folder / ENCODER, min_cosine=least)
    except BundleError as error:
        yield Finding(ENCODER, "", str(error))


def _check_dense(folder: Path, manifest: Manifest, sample: int) -> Iterator[Finding]:
    store = ChunkStore.open(folder)
    leg = DenseLeg.open(folder, manifest.dense, manifest.measured.get("dense"))
    if leg.rows != store.rows:
        yield Finding(DENSE, "", f"it has {leg.rows} rows, there are {store.rows} passages")
        return
    rows = sample_rows(store.rows, sample)
    stored = leg.vectors(rows)
    if not np.isfinite(stored).all():
        yield Finding(DENSE, "", "it holds values that are not finite")
        return
    embedder = load_embedder(folder / ENCODER)
    texts = [chunk.indexed_text for chunk in store.chunks(rows)]
    cosines = embedder.embed_passages(texts) @ stored.T
    wrong = int((cosines.max(axis=1) > cosines.diagonal() + _NEARER).sum())
    if wrong:
        yield Finding(
            DENSE, "", f"{wrong} of {len(rows)} rows hold another passage's vector than their own"
        )

from __future__ import annotations

import filecmp
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.build import BuildOptions, build
from indexer.pipeline.embedding import EmbeddingStage, Encoder
from indexer.pipeline.records import (
    ChunkLine,
    DocumentEntry,
    Failure,
    Mark,
    ParsedBatch,
    chunk_line,
    decode,
    encode,
)
from indexer.pipeline.spool import Spool
from indexer.pipeline.stages import text_digests
from indexer.pipeline.vectors import VectorStore
from indexer.pipeline.workers import Limits
from indexer.source import Source
from indexer.stopping import Stop
from rag.errors import ModelFailure
from rag.index.chunks import DocumentRecord
from rag.types import Float32

LINES = [
    ChunkLine("본문 하나", 0, 5, None, ["A", "나"], "제목"),
    ChunkLine("two", 7, 10, 2, [], ""),
]


def batch(doc_id: str) -> ParsedBatch:
    data = [chunk_line(line) for line in LINES]
    record = DocumentRecord(doc_id, "u", "제목", "ko", "md", {"n": 1, "tags": ["x"]}, "0" * 64, 9)
    return ParsedBatch(
        documents=[DocumentEntry(Mark("k", "e", "s"), "c", True, 2, record)],
        failures=[Failure(Mark("l", "f"), "d", "broken.pdf", "it is broken", True)],
        vocabulary=["b", "가"],
        ids=text_digests([doc_id, doc_id + "2"]),
        digests=text_digests(["x", "y"]),
        tokens=np.array([3, 4], dtype=np.int32),
        sizes=np.array([2, 1], dtype=np.int32),
        terms=np.array([0, 1, 1], dtype=np.int32),
        counts=np.array([1, 2, 5], dtype=np.int32),
        ends=np.cumsum([len(line) for line in data], dtype=np.int64),
        lines=b"".join(data),
    )


def test_a_batch_travels_as_bytes() -> None:
    sent = batch("a")
    got = decode(encode(sent))
    assert encode(got) == encode(sent)
    assert got.documents == sent.documents
    assert got.failures == sent.failures
    assert got.texts(np.array([1, 0])) == ["two", "제목\n본문 하나"]
    assert got.terms.tolist() == [0, 1, 1]


def test_a_spool_gives_back_what_another_process_left(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        for name in ("a", "b"):
            spool.add(encode(batch(name)))
    with Spool(tmp_path) as spool:
        assert [b.documents[0].record.doc_id for b in spool.restore()] == ["a", "b"]
        spool.add(encode(batch("c")))
        assert (spool.batches, spool.documents, spool.chunks) == (3, 3, 6)
        assert spool.lines(np.array([4, 1])) == LINES
        assert spool.column("documents").tolist() == [0, 0, 1, 1, 2, 2]
        assert [e.record.doc_id for e in spool.entries([2, 0])] == ["c", "a"]
        assert list(spool.entries([1])) == list(spool.batch(1).documents)


def test_vectors_come_back_by_their_texts(tmp_path: Path) -> None:
    digests = text_digests([f"t{n}" for n in range(5)])
    vectors = np.arange(15, dtype=np.float32).reshape(5, 3)
    store = VectorStore(tmp_path, 3)
    store.add(digests[:2], vectors[:2])
    store.borrow(digests[2:4], vectors[2:4])
    assert store.missing(digests[[4, 1, 4]]).tolist() == [0]
    found = np.empty((4, 3), dtype=np.float32)
    store.gather(digests[[3, 0, 2, 1]], found)
    assert found.tolist() == vectors[[3, 0, 2, 1]].tolist()
    store.close()
    again = VectorStore(tmp_path, 3)
    again.restore()
    assert len(again) == 2  # the borrowed ones are safe elsewhere
    with pytest.raises(KeyError):
        again.gather(digests[2:3], found[:1])
    again.close()


class Counting:
    """An encoder that writes down what it was given."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self._lock = threading.Lock()

    def embed_passages(self, texts: list[str]) -> Float32:
        with self._lock:
            self.given += texts
        if "bad" in texts:
            raise ModelFailure("it failed")
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def stage(encoder: Counting, store: VectorStore) -> EmbeddingStage:
    how = Encoder(lambda: encoder, batch_tokens=8, callers=1)  # type: ignore[arg-type, return-value]
    return EmbeddingStage(how, store, Stop(), lambda count: None)


def test_each_text_is_embedded_once_the_longest_first(tmp_path: Path) -> None:
    texts = ["aa", "b", "cccc", "b", "aa"]
    tokens = np.array([len(text) for text in texts], dtype=np.int32)
    encoder, store = Counting(), VectorStore(tmp_path, 1)
    with stage(encoder, store) as embedding:
        assert embedding.put(text_digests(texts), tokens, texts) == 3
        while embedding.is_busy(0.05):
            pass
    assert encoder.given == ["cccc", "aa", "b"]
    found = np.empty((5, 1), dtype=np.float32)
    store.gather(text_digests(texts), found)
    assert found.ravel().tolist() == [2, 1, 4, 1, 2]
    store.close()


def test_an_encoder_that_fails_ends_the_build(tmp_path: Path) -> None:
    store = VectorStore(tmp_path, 1)

    def embed() -> None:
        with stage(Counting(), store) as embedding:
            embedding.put(text_digests(["bad"]), np.ones(1, dtype=np.int32), ["bad"])
            while embedding.is_busy(0.05):
                pass

    with pytest.raises(ModelFailure, match="it failed"):
        embed()
    store.close()


def test_how_many_processes_parse_does_not_show(tmp_path: Path, tiny_options: BuildOptions) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    for n in range(150):
        (folder / f"{n}.md").write_text(f"# Pump {n}\n\nPump {n % 7} is primed.\n\n펌프 {n % 5}.\n")
    made = []
    for processes in (1, 3):
        options = replace(tiny_options, limits=Limits(processes=processes))
        made.append(build(Source(str(folder)), tmp_path / str(processes), options))
    assert made[0].version == made[1].version
    for name in ("chunks.arrow", "documents.arrow", "sparse/rows.npy", "sparse/forward_terms.npy",
                 "state/counts.npy", "state/objects.arrow"):  # fmt: skip
        assert filecmp.cmp(made[0].folder / name, made[1].folder / name, shallow=False), name

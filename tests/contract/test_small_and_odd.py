"""The default search with the real encoder over collections and queries that give it little."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from eval.collection import Collection, IndexOptions, build_collection
from eval.datasets import Dataset
from eval.vectors import LazyEmbedder, VectorCache
from rag.models.embedder import encode_queries
from rag.retrieval.feedback import Asked
from rag.retrieval.ranking import Ranker
from rag.types import NO_ROW, Hits, Mode

LAMP = "The lamp is reset by holding its button for ten seconds."
PASSAGES = {
    "lamp": LAMP,
    "warranty": "Repairs are free of charge during the first two years.",
    "손전등": "손전등의 건전지는 뒷면 덮개를 열고 교체합니다.",
    "fuse": "A blown fuse XK-4471 must be replaced by an electrician.",
    "drill": "Never use the drill in the rain or near water.",
}
COLLECTIONS = {
    "one": {"lamp": LAMP},
    "two": {name: PASSAGES[name] for name in ("lamp", "warranty")},
    "five": PASSAGES,
    "copies": {f"copy {i}": LAMP for i in range(5)},
    "an empty one": {"lamp": LAMP, "nothing": ""},
    "marks": {"dots": "...", "smile": "🙂", "lamp": LAMP},
}
QUERIES = {
    "one word": "lamp",
    "a stop word": "the",
    "no known word": "zzyzx qwrtp",
    "marks": "?! …",
    "emoji": "🙂🙂",
    "Korean": "건전지 교체",
    "Japanese": "電池を交換する方法",
    "Arabic": "كيف أعيد ضبط المصباح",
    "mixed": "XK-4471 퓨즈 교체",
    "long": f"{LAMP} " * 1500,
    "long, of no known word": "zzyzx " * 5000,
    "one long word": "lamp" * 3000,
    "control characters": "lamp\x00\x1b\u202e\ufeff",
}
Build = Callable[[dict[str, str]], Collection]


@pytest.fixture(scope="module")
def embedder(exported_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> LazyEmbedder:
    exports = tmp_path_factory.mktemp("exports")
    return LazyEmbedder(str(exported_encoder), exports=exports, backend="onnx")


@pytest.fixture(scope="module")
def build(embedder: LazyEmbedder, tmp_path_factory: pytest.TempPathFactory) -> Build:
    def make(passages: dict[str, str]) -> Collection:
        folder = tmp_path_factory.mktemp("collection")
        lines = [json.dumps({"_id": name, "text": text}) for name, text in passages.items()]
        (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
        dataset = Dataset("odd", {}, {}, corpus_path=folder / "corpus.jsonl")
        (folder / "index").mkdir()
        return build_collection(
            dataset, folder / "index", embedder, IndexOptions(),
            vectors=VectorCache(None, embedder.runs_as), advance=lambda stage, done, total: None,
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def collections(build: Build) -> dict[str, Collection]:
    return {name: build(passages) for name, passages in COLLECTIONS.items()}


def search(
    index: Collection, embedder: LazyEmbedder, texts: Sequence[str], legs: Mode = Mode.HYBRID
) -> Hits:
    encoded = encode_queries(embedder, texts)
    vectors = np.stack([query.vector for query in encoded])
    readable = np.array([query.readable for query in encoded], dtype=np.float32)
    return Ranker(index).rank(Asked(texts, vectors, readable), top_k=10, legs=legs).ranking


def found(index: Collection, hits: Hits) -> list[str]:
    rows = hits.rows[0]
    return [chunk.doc_id for chunk in index.chunks(rows[rows != NO_ROW])]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("name", COLLECTIONS)
def test_every_passage_comes_back_once_with_a_probability(
    collections: dict[str, Collection], embedder: LazyEmbedder, name: str, query: str
) -> None:
    index, rows = collections[name], len(COLLECTIONS[name])
    hits = search(index, embedder, [QUERIES[query]])
    assert sorted(hits.rows[0, :rows].tolist()) == list(range(rows))
    assert (hits.rows[0, rows:] == NO_ROW).all()
    scores = hits.scores[0, :rows]
    assert np.isfinite(scores).all()
    assert 0 <= scores.min() <= scores.max() <= 1
    assert (np.diff(scores) <= 0).all()
    tied = np.diff(scores) == 0
    assert (np.diff(hits.rows[0, :rows])[tied] > 0).all()


@pytest.mark.parametrize("name", COLLECTIONS)
def test_odd_queries_do_not_change_what_others_get(
    collections: dict[str, Collection], embedder: LazyEmbedder, name: str
) -> None:
    index, texts = collections[name], list(QUERIES.values())
    together = search(index, embedder, texts)
    for line, text in enumerate(texts):
        alone = search(index, embedder, [text])
        width = alone.rows.shape[1]
        assert together.rows[line, :width].tolist() == alone.rows[0].tolist()
        np.testing.assert_allclose(together.scores[line, :width], alone.scores[0], atol=1e-4)


def test_copies_have_one_score(collections: dict[str, Collection], embedder: LazyEmbedder) -> None:
    for text in QUERIES.values():
        hits = search(collections["copies"], embedder, [text])
        assert hits.rows[0, :5].tolist() == [0, 1, 2, 3, 4]
        assert len(set(hits.scores[0, :5].tolist())) == 1


def test_copies_of_a_wrong_passage_do_not_bury_the_right_one(
    build: Build, embedder: LazyEmbedder
) -> None:
    index = build(PASSAGES | {f"copy {i}": PASSAGES["drill"] for i in range(200)})
    assert found(index, search(index, embedder, ["How do I reset the lamp?"]))[0] == "lamp"
    assert found(index, search(index, embedder, ["건전지 교체"]))[0] == "손전등"


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("How is the lamp reset?", "lamp"),
        ("lamp", "lamp"),
        (f"{LAMP} " * 1500, "lamp"),
        ("XK-4471", "fuse"),
        ("건전지는 어떻게 교체하나요?", "손전등"),
        ("건전지", "손전등"),
        ("power tools and bad weather", "drill"),
        ("who pays if it breaks soon after purchase", "warranty"),
    ],
)
def test_what_either_leg_finds_first_is_first(
    collections: dict[str, Collection], embedder: LazyEmbedder, query: str, best: str
) -> None:
    index = collections["five"]
    legs = [
        found(index, search(index, embedder, [query], leg)) for leg in (Mode.DENSE, Mode.SPARSE)
    ]
    assert best in [names[0] for names in legs if names]
    assert found(index, search(index, embedder, [query]))[0] == best


def test_without_a_known_word_the_dense_leg_says_what_is_first(
    collections: dict[str, Collection], embedder: LazyEmbedder
) -> None:
    index = collections["five"]
    for text in (QUERIES["no known word"], QUERIES["Arabic"], QUERIES["emoji"]):
        assert found(index, search(index, embedder, [text], Mode.SPARSE)) == []
        dense = search(index, embedder, [text], Mode.DENSE).rows[0, 0]
        assert search(index, embedder, [text]).rows[0, 0] == dense

"""A whole evaluation over real parts: it measures what the retriever returns, and nothing else."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from eval.__main__ import main
from eval.commands import Target, evaluate_target, parse_json_option
from eval.datasets import Dataset, load_beir, load_judged, load_sample
from eval.rankers import IndexRanker
from eval.run import MODES, Evaluation, evaluate, parse_modes
from eval.vectors import LazyEmbedder, VectorCache
from rag.errors import ConfigurationError, EvaluationError
from rag.retrieval.opening import Opened, open_retriever
from rag.types import Mode, Query

CORPUS = {
    "lift": ("Lift of wings", "The lift of a wing grows with the square of the speed."),
    "heat": ("", "A blunt body in hypersonic flow is heated most at its stagnation point."),
    "beam": ("Buckling", "Thin cylinders buckle under axial load long before the theory says."),
    "냉각": ("항공기 냉각", "항공기 엔진은 공기로 냉각한다. 냉각 핀이 열을 방출한다."),
    "김치": ("김치", "김치는 배추를 소금에 절여 발효시킨 음식이다."),
    "q-own": ("", "How do thin cylinders buckle under axial load?"),
    "empty": ("", ""),
}
QUERIES = {
    "q1": "theory of buckling of thin cylinders before axial load",
    "q2": "엔진 냉각",
    "q3": "lift of a wing",
    "q-own": "How do thin cylinders buckle under axial load?",
    "q-blank": " ",
}
QRELS = [
    ("q1", "beam", 1), ("q2", "냉각", 2), ("q3", "lift", 1), ("q-own", "beam", 1),
    ("q-own", "q-own", 1), ("q-blank", "heat", 1), ("q-absent", "heat", 1),
]  # fmt: skip
NONE = lambda stage, done, total: None  # noqa: E731


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("collections") / "tiny"
    (root / "qrels").mkdir(parents=True)
    corpus = [{"_id": i, "title": t, "text": x} for i, (t, x) in CORPUS.items()]
    queries = [{"_id": i, "text": x} for i, x in QUERIES.items()]
    for name, lines in (("corpus", corpus), ("queries", queries)):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (root / f"{name}.jsonl").write_text(text, encoding="utf-8")
    judged = "".join(f"{q}\t{d}\t{g}\n" for q, d, g in QRELS)
    (root / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", "utf-8")
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def target(folder: Path, cache: Path, exported_encoder: Path) -> Target:
    return Target(
        dataset=folder,
        cache=cache,
        indexing={"encoder": str(exported_encoder)},
        running={"backend": "onnx"},
    )


@pytest.fixture(scope="module")
def evaluated(target: Target) -> Evaluation:
    return evaluate_target(target, timed=2, advance=NONE)


@pytest.fixture(scope="module")
def opened(sample_bundle: Path) -> Opened:
    return open_retriever(str(sample_bundle))


def test_every_mode_is_measured(evaluated: Evaluation) -> None:
    result = evaluated.result
    assert result.modes == ["sparse", "dense", "hybrid"]
    for mode in result.modes:
        assert result.results[mode]["Recall@100"] > 0.5
        low, high = result.intervals[mode]["nDCG@10"]
        assert low <= result.results[mode]["nDCG@10"] <= high
        assert result.latency_ms[mode]["n"] == 2
    assert result.scores("sparse", "MRR@10")[:3].tolist() == [1.0, 1.0, 1.0]


def test_judged_queries_that_cannot_be_asked_score_0(evaluated: Evaluation) -> None:
    result = evaluated.result
    assert result.query_ids == ["q1", "q2", "q3", "q-own", "q-blank", "q-absent"]
    assert result.scores("hybrid", "nDCG@10")[4:].tolist() == [0.0, 0.0]
    assert result.notes == ["2 judged queries have no text and score 0, such as 'q-blank'"]


def test_the_querys_own_document_is_no_hit_on_any_leg(evaluated: Evaluation) -> None:
    for run in evaluated.runs.values():
        assert "q-own" not in run["q-own"].doc_ids
        assert "q-own" in run["q1"].doc_ids
    assert evaluated.result.scores("dense", "Recall@100")[3] == 0.5


def test_a_second_evaluation_reads_its_vectors_and_loads_no_encoder(
    target: Target, evaluated: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: LazyEmbedder) -> None:
        raise AssertionError("the encoder was loaded")

    monkeypatch.setattr(LazyEmbedder, "_load", refuse)
    again = evaluate_target(target, timed=0, advance=NONE)
    assert again.result.results == evaluated.result.results


def test_cached_vectors_are_those_of_their_texts(cache: Path, exported_encoder: Path) -> None:
    embedder = LazyEmbedder(str(exported_encoder), exports=cache, backend="onnx")
    vectors = VectorCache(cache / "v", embedder.runs_as)
    texts = ["a long text about wings and lift", "열", ""]
    for _ in range(2):
        found = vectors.embed(embedder, "passage", texts, NONE)
        assert np.allclose(found, embedder.embed_passages(texts), atol=1e-5)
    assert np.allclose(
        vectors.embed(embedder, "passage", texts[::-1], NONE), found[::-1], atol=1e-5
    )
    [file] = [p for p in (cache / "v").iterdir() if np.array_equal(np.load(p), found)]
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(EvaluationError, match="delete it"):
        vectors.embed(embedder, "passage", texts, NONE)


def test_a_bundle_is_ranked_as_its_retriever_ranks(opened: Opened) -> None:
    dataset = load_sample()
    ids = dataset.judged()[:12]
    part = Dataset("part", dataset.queries, {q: dataset.qrels[q] for q in ids})
    runs = IndexRanker(opened.bundle, opened.embedder).rank(part, MODES, {}, NONE)
    for mode in MODES:
        asked = [Query(dataset.queries[q], 1000, legs=mode) for q in ids]
        for query_id, found in zip(ids, opened.retriever.search(asked), strict=True):
            expected = list(dict.fromkeys(p.chunk.doc_id for p in found.passages))
            assert list(runs[mode][query_id].doc_ids) == expected
            best = {p.chunk.doc_id: p.score for p in reversed(found.passages)}
            assert runs[mode][query_id].scores == pytest.approx([best[d] for d in expected])


def test_the_sample_is_answered_well(opened: Opened) -> None:
    found = evaluate(load_sample(), IndexRanker(opened.bundle, opened.embedder), timed=0).result
    assert len(found.query_ids) == 54
    assert found.results["hybrid"]["nDCG@10"] > 0.7
    assert found.results["hybrid"]["Recall@100"] > 0.95
    assert not found.latency_ms


def test_the_fusion_is_what_was_asked_for(opened: Opened) -> None:
    dataset = load_sample()
    dense_only = {"method": "weighted", "dense_weight": 1.0}
    ranker = IndexRanker(opened.bundle, opened.embedder, fusion=dense_only)
    runs = ranker.rank(dataset, [Mode.DENSE, Mode.HYBRID], {}, NONE)
    for query_id, found in runs[Mode.DENSE].items():
        assert runs[Mode.HYBRID][query_id].doc_ids[:5] == found.doc_ids[:5]
    assert ranker.system["fusion"] == dense_only


def test_the_command_writes_what_it_measured(
    target: Target,
    evaluated: Evaluation,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert target.dataset
    assert target.cache
    command = [
        "rag-eval", "retrieval", "--dataset", str(target.dataset), "--backend", "onnx",
        "--encoder", target.indexing["encoder"], "--index-cache", str(target.cache),
        "--modes", "sparse,hybrid", "--timed", "2", "--json", str(tmp_path / "r.json"),
        "--runs", str(tmp_path / "runs"), "--html", str(tmp_path / "r.html"),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    assert "nDCG@10" in capsys.readouterr().out
    raw = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert raw["dataset"] == "tiny"
    assert list(raw["results"]) == ["sparse", "hybrid"]
    expected = evaluated.result.results["hybrid"]["nDCG@10"]
    assert raw["results"]["hybrid"]["nDCG@10"] == pytest.approx(expected, abs=1e-6)
    assert (tmp_path / "runs" / "hybrid.run").read_text("utf-8").startswith("q1 Q0 beam 1 ")
    html = (tmp_path / "r.html").read_text("utf-8")
    assert not re.search(r"(src|href)=|url\(|@import|<script|<link", html)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (Target(), "one of --dataset, --bundle and --url"),
        (Target(bundle="a", url="b"), "one of --dataset, --bundle and --url"),
        (Target(bundle="a", queries=Path("q")), "belong together"),
        (Target(bundle="a", indexing={"k1": 1.0}), "'k1' decides how a --dataset is indexed"),
        (Target(url="a", running={"device": "cuda"}), "'device' is for encoders that run here"),
        (Target(bundle="a", headers={"x": "y"}), "--header goes with --url"),
        (Target(bundle="a", depth=0), "--depth is 0"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(wrong: Target, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        evaluate_target(wrong, advance=NONE)


def test_values_that_make_no_sense_are_refused(folder: Path, tmp_path: Path) -> None:
    assert parse_modes("hybrid, dense,hybrid") == [Mode.HYBRID, Mode.DENSE]
    with pytest.raises(EvaluationError, match="there is no mode 'both'"):
        parse_modes("both")
    with pytest.raises(ConfigurationError, match="--fusion is not JSON"):
        parse_json_option("--fusion", "{")
    with pytest.raises(ConfigurationError, match="give a JSON object"):
        parse_json_option("--fusion", "3")
    qrels = tmp_path / "dev.tsv"
    qrels.write_text("other\tbeam\t1\n")
    unrelated = load_judged("x", folder / "queries.jsonl", qrels)
    with pytest.raises(EvaluationError, match="no judgement of x"):
        evaluate(unrelated, None)  # type: ignore[arg-type]


def test_an_empty_corpus_is_refused(target: Target, folder: Path, tmp_path: Path) -> None:
    for name in ("queries.jsonl", "qrels/test.tsv"):
        path = tmp_path / "none" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((folder / name).read_bytes())
    (tmp_path / "none" / "corpus.jsonl").write_text("\n")
    assert load_beir(tmp_path / "none").qrels
    with pytest.raises(EvaluationError, match="holds no document"):
        evaluate_target(Target(dataset=tmp_path / "none"), advance=NONE)

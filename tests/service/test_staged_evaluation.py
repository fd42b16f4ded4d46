"""Query expansion and reranking, evaluated on a bundle and through a service; endpoints are fakes
on real ports.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from eval.__main__ import main
from eval.commands import Target, evaluate_target
from eval.run import Evaluation, evaluate
from eval.stages import StagedRanker, Stages
from rag.errors import ConfigurationError
from rag.models.load_reranker import RerankerSpec, load_reranker
from rag.retrieval.opening import Opened
from rag.service.reranking import Reranking
from rag.types import Mode
from tests.service.test_evaluation import DATASET


def staged(opened: Opened, stages: Stages, modes: list[Mode] | None = None) -> Evaluation:
    with closing(StagedRanker(opened.retriever, stages, {}, top_k=20)) as ranker:
        return evaluate(DATASET, ranker, modes=modes or [Mode.HYBRID], timed=0)


def first(found: Evaluation, query_id: str, mode: str = "hybrid") -> str:
    return found.runs[mode][query_id].doc_ids[0]


@pytest.mark.parametrize("method", ["multi", "decompose"])
def test_more_queries_are_searched_and_merged(opened: Opened, endpoint: Any, method: str) -> None:
    plain = staged(opened, Stages())
    endpoint.expansion = "say Prune roses in February\nRoses in winter"
    stages = Stages(expand=method, generator_url=endpoint.url, generator_model="fine")
    found = staged(opened, stages, [Mode.SPARSE, Mode.HYBRID])
    assert "en/garden.md" in found.runs["hybrid"]["q1"].doc_ids[:3]
    assert "en/garden.md" not in plain.runs["hybrid"]["q1"].doc_ids[:1]
    assert found.runs["sparse"]["q1"].doc_ids != plain.runs["hybrid"]["q1"].doc_ids
    assert len(endpoint.asked) == len(DATASET.queries)  # one expansion serves both modes
    assert found.result.system["expand"] == method
    assert found.result.system["degraded"] == 2  # the Korean question keeps its language
    assert found.result.notes == ["2 of 6 searches were degraded: a stage failed"]


def test_a_hypothetical_passage_asks_the_dense_leg(opened: Opened, endpoint: Any) -> None:
    endpoint.expansion = "say Roses are pruned in late February, after the last frost."
    stages = Stages(expand="hyde", generator_url=endpoint.url, generator_model="fine")
    found = staged(opened, stages)
    assert "en/garden.md" in found.runs["hybrid"]["q1"].doc_ids[:3]


def test_a_broken_generator_leaves_the_queries_as_they_are(opened: Opened, endpoint: Any) -> None:
    endpoint.expansion = "400"
    stages = Stages(expand="multi", generator_url=endpoint.url, generator_model="fine")
    found, plain = staged(opened, stages), staged(opened, Stages())
    assert found.result.results == plain.result.results
    assert found.result.system["degraded"] == len(DATASET.queries)


def test_a_rerank_endpoint_reorders(opened: Opened, rerank_endpoint: Any) -> None:
    rerank_endpoint.score = lambda query, texts: [float("rose" in text.lower()) for text in texts]
    found = staged(opened, Stages(rerank=f"{rerank_endpoint.url}/tei/rerank"))
    assert first(found, "q1") == "en/garden.md"
    assert rerank_endpoint.bodies[0]["query"] == DATASET.queries["q1"]
    endless = staged(opened, Stages(rerank=f"{rerank_endpoint.url}/500/rerank"))
    assert endless.result.results == staged(opened, Stages()).result.results
    assert endless.result.system["degraded"] == len(DATASET.queries)


def test_the_folders_of_a_cross_encoder_give_the_same(
    opened: Opened, cross_encoder: Path, exported_cross_encoder: Path
) -> None:
    torch = staged(opened, Stages(rerank=str(cross_encoder), depth=4))
    onnx = staged(opened, Stages(rerank=str(exported_cross_encoder), depth=4))
    for query_id, ranking in torch.runs["hybrid"].items():
        assert list(ranking.doc_ids) == list(onnx.runs["hybrid"][query_id].doc_ids)
    assert torch.runs != staged(opened, Stages()).runs
    assert torch.result.system["rerank_depth"] == 4


@pytest.fixture
def reranking(rerank_endpoint: Any) -> Reranking:
    url = f"{rerank_endpoint.url}/tei/rerank"
    return Reranking(load_reranker(RerankerSpec("remote", url=url)))


def test_a_service_runs_its_own_stages(
    launch: Any, endpoint: Any, rerank_endpoint: Any, reranking: Reranking, opened: Opened,
    tmp_path: Path,
) -> None:  # fmt: skip
    rerank_endpoint.score = lambda query, texts: [float("rose" in text.lower()) for text in texts]
    files = {"queries": tmp_path / "queries.jsonl", "qrels": tmp_path / "test.tsv"}
    lines = [json.dumps({"_id": i, "text": text}) for i, text in DATASET.queries.items()]
    files["queries"].write_text("\n".join(lines), encoding="utf-8")
    judged = [f"{q}\t{d}\t{g}" for q, gold in DATASET.qrels.items() for d, g in gold.items()]
    files["qrels"].write_text("\n".join(judged), encoding="utf-8")
    endpoint.expansion = "say When are roses pruned?"
    stages = Stages(expand="multi", rerank="service")
    with launch(generator=endpoint.generator("fine"), reranking=reranking) as running:
        target = Target(url=running.url, stages=stages, depth=20, **files)
        found = evaluate_target(target, modes="hybrid", timed=1, advance=lambda *_: None)
    assert found.result.system["fields"] == {"query_expansion": "multi", "rerank": True}
    assert first(found, "q1") == "en/garden.md"
    here = Stages(
        expand="multi", generator_url=endpoint.url, generator_model="fine",
        rerank=f"{rerank_endpoint.url}/tei/rerank",
    )  # fmt: skip
    assert first(staged(opened, here), "q1") == "en/garden.md"


@pytest.mark.parametrize(
    ("stages", "of_service", "message"),
    [
        (Stages(expand="rewrite"), False, "--expand is 'rewrite'"),
        (Stages(expand="multi"), False, "--expand, --generator-url and --generator-model"),
        (Stages(generator_url="http://h", generator_model="m"), False, "belong together"),
        (Stages(expand="multi", generator_url="http://h", generator_model="m"), True, "its own"),
        (Stages(rerank="http://h/rerank"), True, "use --rerank service"),
        (Stages(rerank="service"), False, "goes with --url"),
        (Stages(rerank="x", depth=0), False, "--rerank-depth is 0"),
    ],
)
def test_stages_that_cannot_be_run_are_refused(
    stages: Stages, of_service: bool, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        stages.check(of_service=of_service)


def test_the_command(
    bundle_folder: Path, rerank_endpoint: Any, endpoint: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    endpoint.expansion = "say How is the lamp reset?"
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "test.tsv"
    queries.write_text('{"_id": "q1", "text": "How do I reset the lamp?"}\n', encoding="utf-8")
    qrels.write_text("q1\ten/lamp.md\t1\n", encoding="utf-8")
    arguments = [
        "retrieval", f"--bundle={bundle_folder}", f"--queries={queries}", f"--qrels={qrels}",
        "--expand=multi", f"--generator-url={endpoint.url}", "--generator-model=fine",
        f"--rerank={rerank_endpoint.url}/cohere/rerank", "--rerank-dialect=cohere",
        "--rerank-model=r", "--rerank-depth=3", "--api-key=k", "--modes=hybrid", "--timed=1",
        f"--json={tmp_path / 'out.json'}", "--quiet",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["rag-eval", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["results"]["hybrid"]["nDCG@10"] == 1.0
    assert result["system"]["rerank"] == "r"
    body = rerank_endpoint.bodies[0]
    assert (body["model"], len(body["documents"])) == ("r", 3)
    assert rerank_endpoint.keys[0] == "Bearer k"
    assert endpoint.asked[0]["model"] == "fine"

"""A service is evaluated over HTTP and gives what its bundle gives."""

from __future__ import annotations

import httpx2
import pytest

from eval.datasets import Dataset
from eval.rankers import IndexRanker
from eval.run import MODES, evaluate
from eval.service_ranker import ServiceRanker
from rag.errors import EvaluationError
from rag.retrieval.opening import Opened
from rag.types import Mode

DATASET = Dataset(
    "six",
    {"q1": "How do I reset the lamp?", "q2": "연차 휴가는 며칠인가요?", "q3": "tyre pressure"},
    {"q1": {"en/lamp.md": 1}, "q2": {"ko/휴가.md": 1}, "q3": {"en/bicycle.txt": 1}},
)


def test_a_service_gives_what_its_bundle_gives(server, opened: Opened) -> None:  # type: ignore[no-untyped-def]
    remote = evaluate(DATASET, ServiceRanker(server.url, top_k=50), timed=2)
    local = evaluate(DATASET, IndexRanker(opened.bundle, opened.embedder, depth=50), timed=0)
    assert remote.result.results == local.result.results
    for mode in map(str, MODES):
        for query_id in DATASET.queries:
            found, expected = remote.runs[mode][query_id], local.runs[mode][query_id]
            assert list(found.doc_ids) == list(expected.doc_ids)
            assert found.scores == pytest.approx(expected.scores, rel=1e-5)
    assert remote.result.results["hybrid"]["nDCG@10"] > 0.9
    assert remote.result.system["version"] == opened.bundle.manifest.version
    assert remote.result.latency_ms["hybrid"]["n"] == 2


def test_fields_of_requests_are_evaluated(launch, endpoint) -> None:  # type: ignore[no-untyped-def]
    endpoint.expansion = "say Prune roses in February"
    turn = {"role": "user", "content": "Tell me of roses."}
    fields = {"query_expansion": "rewrite", "messages": [turn]}
    with launch(generator=endpoint.generator("fine")) as running:
        plain = evaluate(DATASET, ServiceRanker(running.url), modes=[Mode.HYBRID], timed=0)
        ranker = ServiceRanker(running.url, fields=fields)
        expanded = evaluate(DATASET, ranker, modes=[Mode.HYBRID], timed=0)
        endpoint.expansion = "500"
        ranker = ServiceRanker(running.url, fields=fields)
        degraded = evaluate(DATASET, ranker, modes=[Mode.HYBRID], timed=0)
    assert plain.runs["hybrid"]["q1"].doc_ids[0] == "en/lamp.md"
    assert expanded.runs["hybrid"]["q1"].doc_ids[0] == "en/garden.md"
    assert expanded.result.system["fields"] == fields
    # The Korean question keeps its language: the English rewrite is not used.
    assert expanded.result.system["degraded"] == 1
    assert degraded.result.system["degraded"] == 3
    assert degraded.result.results == plain.result.results


def test_what_a_service_refuses_is_said_in_one_line(server) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(EvaluationError, match=r"answered 400: top_k is 999"):
        ServiceRanker(server.url, top_k=999).rank(DATASET, [Mode.SPARSE], {}, lambda *_: None)
    with pytest.raises(EvaluationError, match=r"answered 400: .*fusion"):
        ServiceRanker(server.url, fusion={"method": "none"}).time(["x"], Mode.HYBRID)


def test_what_is_no_service_is_said_in_one_line(server) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(EvaluationError, match="does not answer"):
        ServiceRanker("http://127.0.0.1:9").time(["x"], Mode.SPARSE)
    with pytest.raises(EvaluationError, match="answered 404"):
        ServiceRanker(f"{server.url}/elsewhere").time(["x"], Mode.SPARSE)
    assert httpx2.get(f"{server.url}/ping").status_code == 200

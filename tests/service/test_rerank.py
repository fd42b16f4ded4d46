"""Reranked replies over HTTP: order, prefixes, deadlines, and what happens when it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rag.errors import RerankerFailure
from rag.models.onnx_reranker import OnnxReranker
from rag.models.remote_reranker import RemoteReranker
from rag.service.reranking import Reranking

QUERIES = ("how is the kettle descaled with vinegar", "비밀번호는 언제 바꿔야 합니다")


@pytest.fixture(scope="module")
def local(launch: Any, exported_cross_encoder: Path) -> Iterator[Any]:
    """A server with the tiny cross-encoder, which reads four candidates."""
    with launch(
        reranking=Reranking(OnnxReranker(exported_cross_encoder, threads=1), depth=4)
    ) as server:
        yield server


@pytest.fixture
def remote(launch: Any, rerank_endpoint: Any) -> Iterator[Callable[[str], Any]]:
    """Servers whose rerank endpoint behaves as told."""
    opened: list[Any] = []

    def start(behaviour: str, depth: int = 50) -> Any:
        reranker = RemoteReranker(f"{rerank_endpoint.url}/{behaviour}")
        manager = launch(reranking=Reranking(reranker, depth=depth))
        opened.append(manager)
        return manager.__enter__()

    yield start
    rerank_endpoint.go_on.set()
    for manager in opened:
        manager.__exit__(None, None, None)


def passages(reply: Any) -> list[dict[str, Any]]:
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["passages"]
    return found


def retrieve(server: Any, query: str, **fields: Any) -> list[dict[str, Any]]:
    return passages(server.ask(query, mode="retrieve", **fields))


@pytest.mark.parametrize("query", QUERIES)
def test_the_reranker_orders_the_candidates(
    local: Any, exported_cross_encoder: Path, query: str
) -> None:
    plain = retrieve(local, query, top_k=10)
    read = retrieve(local, query, top_k=10, rerank=True)
    assert len(plain) > 4
    texts = [p["text"] for p in read]
    assert sorted(texts) == sorted(p["text"] for p in plain)
    assert texts[4:] == [p["text"] for p in plain[4:]]
    assert texts[:4] != [p["text"] for p in plain[:4]]
    assert [p["rank"] for p in read] == list(range(1, len(read) + 1))
    assert [p["scores"]["rerank"]["rank"] for p in read[:4]] == [1, 2, 3, 4]
    scores = [p["scores"]["rerank"]["score"] for p in read[:4]]
    assert scores == sorted(scores, reverse=True) == [p["score"] for p in read[:4]]
    assert [p["scores"]["rerank"] for p in read[4:]] == [None] * len(read[4:])
    assert {p["text"]: p["scores"]["dense"] for p in read} == {
        p["text"]: p["scores"]["dense"] for p in plain
    }


def test_scores_are_the_models_for_title_and_text(
    launch: Any, opened: Any, exported_cross_encoder: Path
) -> None:
    model = OnnxReranker(exported_cross_encoder, threads=1)
    seen: dict[str, float] = {}

    class Recording(OnnxReranker):
        def score(self, query: str, texts: Any, **rest: Any) -> Any:
            scores = super().score(query, texts, **rest)
            seen.update(zip(texts, scores.tolist(), strict=True))
            return scores

    recording = Recording(exported_cross_encoder, threads=1)
    with launch(reranking=Reranking(recording)) as server:
        best = retrieve(server, QUERIES[0], top_k=1, rerank=True)[0]
    assert best["score"] == max(seen.values())
    text = next(text for text, score in seen.items() if score == best["score"])
    assert text.endswith(best["text"])
    assert model.score(QUERIES[0], [text])[0] == pytest.approx(best["score"], abs=1e-5)


@pytest.mark.parametrize("query", QUERIES)
def test_a_smaller_top_k_gives_a_prefix(local: Any, query: str) -> None:
    most = [p["chunk_id"] for p in retrieve(local, query, top_k=10, rerank=True)]
    for top_k in range(1, len(most) + 1):
        found = retrieve(local, query, top_k=top_k, rerank=True)
        assert [p["chunk_id"] for p in found] == most[:top_k]


def test_min_score_holds_for_the_fused_score(local: Any) -> None:
    plain = retrieve(local, QUERIES[0], top_k=10)
    floor = plain[1]["score"]
    kept = {p["chunk_id"] for p in plain if p["score"] >= floor}
    read = retrieve(local, QUERIES[0], top_k=10, rerank=True, min_score=floor)
    assert {p["chunk_id"] for p in read} == kept
    assert retrieve(local, QUERIES[0], rerank=True, min_score=1e9) == []


def test_time_is_told_and_only_where_it_was_spent(local: Any) -> None:
    assert local.ask(mode="retrieve", rerank=True).json()["timings_ms"]["rerank"] > 0
    reply = local.ask(mode="retrieve").json()
    assert reply["timings_ms"]["rerank"] == 0
    assert reply["degraded"] == []
    assert all(p["scores"]["rerank"] is None for p in reply["passages"])


def test_answers_and_streams_use_the_new_order(local: Any) -> None:
    expected = [p["chunk_id"] for p in retrieve(local, QUERIES[0], top_k=3, rerank=True)]
    reply = local.ask(QUERIES[0], top_k=3, rerank=True).json()
    assert [p["chunk_id"] for p in reply["passages"]] == expected
    assert reply["answer"] is not None
    first, *_, last = local.frames(QUERIES[0], top_k=3, rerank=True)
    assert [p["chunk_id"] for p in first["passages"]] == expected
    assert last["degraded"] == []


def test_an_endpoint_reranks_too(remote: Callable[..., Any], rerank_endpoint: Any) -> None:
    server = remote("tei")
    found = retrieve(server, QUERIES[1], top_k=2, rerank=True)
    assert "비밀번호는 90일마다" in found[0]["text"]
    assert found[0]["scores"]["rerank"]["rank"] == 1
    (body,) = rerank_endpoint.bodies
    assert body["query"] == QUERIES[1]
    assert len(body["texts"]) > 2


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("429", "over its rate limit"),
        ("503", "failed (503)"),
        ("reset", "closed the connection"),
        ("html", "not JSON"),
        ("duplicate", "twice"),
        ("missing", "passages, not the passage"),
    ],
)
def test_a_failure_keeps_the_fused_order(
    remote: Callable[..., Any], behaviour: str, said: str
) -> None:
    server = remote(behaviour)
    plain = retrieve(server, QUERIES[0], top_k=3)
    reply = server.ask(QUERIES[0], top_k=3, rerank=True).json()
    assert reply["passages"] == plain
    (note,) = reply["degraded"]
    assert note.startswith("rerank: ")
    assert said in note
    assert reply["answer"] is not None
    assert 'rag_degraded_total{bundle="",stage="rerank"} 1.0' in server.client.get("/metrics").text


@pytest.mark.parametrize("mode", ["answer", "retrieve"])
def test_a_slow_reranker_leaves_time_for_the_rest(remote: Callable[..., Any], mode: str) -> None:
    server = remote("hang")
    plain = retrieve(server, QUERIES[0])
    reply = server.ask(QUERIES[0], rerank=True, mode=mode, deadline_ms=5000)
    assert reply.status_code == 200
    assert reply.json()["passages"] == plain
    (note,) = reply.json()["degraded"]
    assert note.startswith("rerank: ")
    assert "deadline" in note
    if mode == "answer":
        assert reply.json()["answer"] is not None


def test_a_model_that_breaks_is_told_without_its_cause(
    launch: Any, exported_cross_encoder: Path
) -> None:
    class Breaking(OnnxReranker):
        failure: Exception = RerankerFailure("the reranker tiny failed: no memory")

        def score(self, *_: Any, **__: Any) -> Any:
            raise self.failure

    model = Breaking(exported_cross_encoder, threads=1)
    with launch(reranking=Reranking(model)) as server:
        expected = "rerank: failure: the reranker tiny failed: no memory"
        assert server.ask(rerank=True).json()["degraded"] == [expected]
        model.failure = KeyError("/secret/path")
        (note,) = server.ask(rerank=True).json()["degraded"]
        assert note == "rerank: model_failure: rerank failed on this request; the log has the cause"
        assert server.client.get("/ping").status_code == 200


def test_a_full_queue_keeps_the_fused_order(launch: Any, exported_cross_encoder: Path) -> None:
    entered, go_on = threading.Semaphore(0), threading.Event()

    class Waiting(OnnxReranker):
        def score(self, *arguments: Any, **rest: Any) -> Any:
            entered.release()
            assert go_on.wait(60)
            return super().score(*arguments, **rest)

    reranking = Reranking(Waiting(exported_cross_encoder, threads=1), max_waiting=1)
    replies: list[Any] = []
    with launch(reranking=reranking) as server:
        ask = lambda: replies.append(server.ask(mode="retrieve", rerank=True).json())  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(3)]
        threads[0].start()
        assert entered.acquire(timeout=60)
        for thread in threads[1:]:
            thread.start()
        while not replies:  # one waits, the other finds the queue full
            threads[1].join(0.01)
        assert "requests wait for rerank" in replies[0]["degraded"][0]
        go_on.set()
        for thread in threads:
            thread.join(60)
        assert [reply["degraded"] for reply in replies[1:]] == [[], []]


def test_without_a_reranker_the_request_is_refused(server: Any) -> None:
    reply = server.ask(rerank=True)
    assert reply.status_code == 400
    assert "this service has no reranker" in reply.json()["error"]["message"]


def test_settings_choose_the_reranker(
    spawn: Any, bundle_folder: Path, exported_cross_encoder: Path
) -> None:
    process = spawn(
        RAG_BUNDLE=str(bundle_folder),
        RAG_RERANKER="onnx",
        RAG_RERANKER_PATH=str(exported_cross_encoder),
        RAG_RERANKER_DEPTH="2",
    )
    process.until(200)
    body = {"query": QUERIES[0], "mode": "retrieve", "rerank": True}
    found = process.client.post("/invocations", json=body).json()["passages"]
    assert [p["scores"]["rerank"] is not None for p in found] == [True, True, False, False, False]

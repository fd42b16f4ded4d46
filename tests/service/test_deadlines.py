"""One deadline over all stages: what is left out when time is short, and how that is told."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rag.models.load_generator import GeneratorSpec, load_generator
from rag.models.onnx_reranker import OnnxReranker
from rag.service import planning
from rag.service.planning import TimePlan
from rag.service.reranking import Reranking

QUERY = "How do I reset the lamp?"


def test_the_reranker_is_skipped_where_it_would_eat_into_the_answers_time(
    launch: Any, exported_cross_encoder: Path
) -> None:
    reranking = Reranking(OnnxReranker(exported_cross_encoder, threads=1))
    with launch(reranking=reranking) as server:
        plain = server.ask(QUERY, mode="retrieve").json()["passages"]
        assert server.ask(QUERY, rerank=True).json()["degraded"] == []
        assert reranking.usual_s > 0
        reranking.usual_s = 30.0  # as if the model were slow
        reply = server.ask(QUERY, rerank=True, deadline_ms=20_000).json()
        assert reply["answer"] is not None
        assert reply["passages"] == plain
        (note,) = reply["degraded"]
        assert note.startswith("rerank: skipped: ")
        retrieved = server.ask(QUERY, rerank=True, mode="retrieve", deadline_ms=50_000)
        assert retrieved.json()["degraded"] == []


def test_fewer_passages_go_into_the_prompt_where_time_is_short(launch: Any, endpoint: Any) -> None:
    def slow(texts: Any) -> None:
        time.sleep(2.5)

    with launch(generator=endpoint.generator("fine"), before=slow, reserve_s=60.0) as server:
        reply = server.ask(QUERY, deadline_ms=4_500, top_k=5).json()
    assert reply["answer"] == "Hold the power button [1]."
    assert len(reply["passages"]) == 5
    (note,) = reply["degraded"]
    assert note.startswith("passages: fewer: ")
    shown = endpoint.asked[-1]["messages"][-1]["content"].count("<passage n=")
    assert f"holds {shown} of 5" in note
    assert 1 <= shown < 5


@pytest.mark.parametrize("stream", [False, True])
def test_no_generator_is_asked_where_no_time_is_left(
    launch: Any, endpoint: Any, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "LEAST_SHARE", 0.99)

    def slow(texts: Any) -> None:
        time.sleep(2.5)

    with launch(generator=endpoint.generator("fine"), before=slow, reserve_s=60.0) as server:
        if stream:
            reply = server.frames(QUERY, deadline_ms=5_000)[-1]
        else:
            reply = server.ask(QUERY, deadline_ms=5_000).json()
            assert reply["passages"]
        assert reply["answer"] is None
        (note,) = reply["degraded"]
        assert note.startswith("generator: skipped: ")
        assert endpoint.asked == []
        if not stream:
            failed = server.ask(QUERY + "?", deadline_ms=5_000, on_generator_failure="error")
            assert failed.status_code == 504
            assert failed.json()["error"]["type"] == "generator_skipped"


def test_the_plan_keeps_at_most_its_share_of_a_short_deadline() -> None:
    now = time.monotonic()
    assert TimePlan.of(now, now + 50, reserve_s=2.0).retrieved_by == now + 48
    assert TimePlan.of(now, now + 1, reserve_s=2.0).reserve_s == pytest.approx(0.6)
    assert TimePlan.of(now, now + 1, reserve_s=0.0).passages(9) == 9
    late = TimePlan(now + 100.0, 400.0)
    assert late.passages(8) == 1
    assert late.passages(0) == 0
    assert TimePlan(now + 250.0, 400.0).passages(8) == 4
    assert late.may_generate
    assert not TimePlan(now + 30, 400.0).may_generate


def test_the_breaker_is_seen_in_metrics_and_leaves_a_dead_endpoint_alone(
    launch: Any, endpoint: Any
) -> None:
    told: list[tuple[str, str]] = []
    spec = GeneratorSpec(
        "openai", url=endpoint.url, model="503", attempts=1, breaker_threshold=2,
        breaker_open_s=0.3,
    )  # fmt: skip
    generator = load_generator(spec, observe_breaker=lambda *of: told.append(of))
    with launch(generator=generator) as server:
        for name, state in told:
            server.metrics.breaker(name, state)
        where = f'endpoint="127.0.0.1:{endpoint.port}"'
        text = server.client.get("/metrics").text
        assert f"rag_breaker_state{{{where}}} 0.0" in text
        notes = [server.ask(QUERY).json()["degraded"][0] for _ in range(4)]
        reasons = [note.split(": ")[1] for note in notes]
        assert reasons[:3] == ["unavailable", "unavailable", "circuit_open"]
        assert len(endpoint.asked) == reasons.count("unavailable")
        for name, state in told[1:2]:
            server.metrics.breaker(name, state)
        text = server.client.get("/metrics").text
        assert f"rag_breaker_state{{{where}}} 2.0" in text
        assert f"rag_breaker_opened_total{{{where}}} 1.0" in text
        failed = server.ask(QUERY, on_generator_failure="error")
        assert failed.status_code == 502
        threading.Event().wait(0.35)
        server.ask(QUERY)
        assert [state for _, state in told][:4] == ["closed", "open", "half_open", "open"]


def test_unsupported_sentences_are_left_out_of_streams_too(launch: Any, endpoint: Any) -> None:
    said = "say Hold the power button for ten seconds. [1] Bananas are yellow fruits. [1]"
    with launch(generator=endpoint.generator(said), answering={"unsupported": "drop"}) as server:
        whole = server.ask(QUERY).json()
        frames = server.frames(QUERY)
        assert whole["answer"] == "Hold the power button for ten seconds. [1]"
        assert "".join(f["text"] for f in frames[1:-1]) == frames[-1]["answer"] == whole["answer"]
        flagged = server.ask(QUERY, unsupported="flag").json()
        assert [c["supported"] for c in flagged["citations"]] == [True, False]


def test_a_request_names_a_template_that_it_may(launch: Any, endpoint: Any) -> None:
    answering = {"allowed": ["brief"]}
    with launch(generator=endpoint.generator("fine"), answering=answering) as server:
        assert server.ask(QUERY, template="brief").status_code == 200
        assert "one or two short" in endpoint.asked[-1]["messages"][0]["content"]
        refused = server.ask(QUERY, template="detailed")
        assert refused.status_code == 400
        assert "brief, default" in refused.json()["error"]["message"]


def test_a_best_passage_that_is_improbable_is_not_answered_from(launch: Any, endpoint: Any) -> None:
    with launch(generator=endpoint.generator("fine"), answering={"abstain_below": 0.999}) as server:
        reply = server.ask("연차 휴가는 며칠인가요?").json()
        assert reply["abstained"] is True
        assert reply["answer"] == "색인된 문서에는 이 질문에 대한 답이 없습니다."
        assert reply["passages"]
        assert endpoint.asked == []
        other = server.ask(QUERY, fusion={"method": "rrf"}).json()  # no probabilities there
        assert other["abstained"] is False

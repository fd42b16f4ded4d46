"""Queries expanded through the generator endpoint: what is searched, what is told, what fails.

The endpoint is a fake one on a real port (see conftest.py).
"""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest

from rag.service import replies

METHODS = ("rewrite", "multi", "hyde", "decompose")
HISTORY = [
    {"role": "user", "content": "How do I reset the lamp?"},
    {"role": "assistant", "content": "Hold the power button for ten seconds [1]."},
]


def ids(reply: Any) -> list[str]:
    return [passage["chunk_id"] for passage in reply["passages"]]


def expand(running: Any, method: str, query: str = "What about the kettle?", **more: Any) -> Any:
    fields = {"mode": "retrieve", "messages": HISTORY} | more
    response = running.ask(query, query_expansion=method, **fields)
    assert response.status_code == 200, response.text
    reply = response.json()
    replies.InvocationReply.model_validate(reply)
    return reply


def test_a_follow_up_is_searched_as_its_rewrite(launch: Any, endpoint: Any) -> None:
    endpoint.expansion = "say How do I descale the kettle?"
    with launch(generator=endpoint.generator("fine")) as running:
        reply = expand(running, "rewrite", "And descaling?")
        plain = running.ask("How do I descale the kettle?", mode="retrieve").json()
    assert reply["queries"] == ["How do I descale the kettle?"]
    assert reply["passages"] == plain["passages"]
    assert reply["degraded"] == []
    assert reply["timings_ms"]["expand"] > 0
    shown = endpoint.asked[0]["messages"][1]["content"]
    assert "How do I reset the lamp?" in shown
    assert shown.endswith("Question: And descaling?")


def test_without_history_nothing_is_rewritten(launch: Any, endpoint: Any) -> None:
    with launch(generator=endpoint.generator("500")) as running:
        reply = expand(running, "rewrite", messages=[])
    assert endpoint.asked == []
    assert "queries" not in reply
    assert reply["degraded"] == []


def test_paraphrases_are_searched_beside_the_query(launch: Any, endpoint: Any) -> None:
    endpoint.expansion = "say 1. 연차는 며칠인가요?\n2. 유급 휴가 일수\n3. Annual leave?"
    with launch(generator=endpoint.generator("fine")) as running:
        reply = expand(running, "multi", "휴가는 며칠?", messages=[], top_k=6)
        assert reply["queries"] == ["휴가는 며칠?", "연차는 며칠인가요?", "유급 휴가 일수"]
        assert reply["passages"][0]["doc_id"] == "ko/휴가.md"
        assert reply["passages"][0]["score"] == 1.0
        scores = [passage["score"] for passage in reply["passages"]]
        assert scores == sorted(scores, reverse=True)
        for top_k in (1, 2, 5):
            fewer = expand(running, "multi", "휴가는 며칠?", messages=[], top_k=top_k)
            assert ids(fewer) == ids(reply)[:top_k]


def test_sub_questions_find_passages_for_each(launch: Any, endpoint: Any) -> None:
    endpoint.expansion = 'say {"queries": ["Water for tomatoes?", "Tyre pressure of bicycle?"]}'
    with launch(generator=endpoint.generator("fine")) as running:
        reply = expand(running, "decompose", "Tomatoes and tyres, how much?", top_k=2)
    assert len(reply["queries"]) == 3
    found = {passage["doc_id"] for passage in reply["passages"]}
    assert found == {"en/garden.md", "en/bicycle.txt"}


def test_a_hypothetical_passage_asks_the_dense_leg_alone(launch: Any, endpoint: Any) -> None:
    passage = "Prune roses late in winter, in February, before they bud."
    endpoint.expansion = f"say {passage}"
    seen: list[str] = []
    with launch(generator=endpoint.generator("fine"), before=seen.extend) as running:
        reply = expand(running, "hyde", "zzz", legs="hybrid")
        assert reply["queries"] == ["zzz", passage]
        assert seen == ["zzz", passage]
        garden = next(p for p in reply["passages"] if p["doc_id"] == "en/garden.md")
        assert garden["scores"]["dense"]["rank"] == 1
        assert garden["scores"]["sparse"] is None
        seen.clear()
        sparse = expand(running, "hyde", "zzz", legs="sparse")
        assert seen == []
        assert sparse["passages"][0]["doc_id"] == "en/garden.md"


def test_the_floor_is_each_search_s_own(launch: Any, endpoint: Any) -> None:
    endpoint.expansion = "say Descale the kettle with vinegar\nkettle descaling monthly"
    with launch(generator=endpoint.generator("fine")) as running:
        everything = expand(running, "multi", top_k=6)
        alone = running.ask("Descale the kettle with vinegar", mode="retrieve").json()
        floor = 0.95 * alone["passages"][0]["score"]
        few = expand(running, "multi", top_k=6, min_score=floor)
        none = expand(running, "multi", top_k=6, min_score=1e9)
    assert 0 < len(few["passages"]) < len(everything["passages"])
    assert few["passages"][0]["doc_id"] == "en/kettle.md"
    assert none["passages"] == []


def test_the_answer_and_the_stream_tell_what_was_searched(launch: Any, endpoint: Any) -> None:
    endpoint.expansion = "say How do I reset the desk lamp?"
    with launch(generator=endpoint.generator("fine")) as running:
        reply = expand(running, "rewrite", "And how?", mode="answer")
        assert reply["answer"] == "Hold the power button [1]."
        assert endpoint.asked[-1]["messages"][-1]["content"].endswith("Question: And how?")
        frames = running.frames("And how?", query_expansion="rewrite", messages=HISTORY)
    for frame in (frames[0], frames[-1]):
        kinds = {"passages": replies.PassagesFrame, "done": replies.DoneFrame}
        kinds[frame["type"]].model_validate(frame)
    assert frames[-1]["queries"] == ["How do I reset the desk lamp?"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "fault", ["500", "429", "hang", "hang-in-the-middle", "garbage", "flood", "say 1.\n2.\n[]"]
)
def test_a_failing_endpoint_leaves_the_query(
    launch: Any, endpoint: Any, method: str, fault: str
) -> None:
    if (method, fault) == ("hyde", "flood"):
        fault = "say 1."  # of a flood of text, its beginning is a passage
    endpoint.expansion = fault
    with launch(generator=endpoint.generator("fine")) as running:
        plain = running.ask("descale the kettle", mode="retrieve").json()
        reply = expand(running, method, "descale the kettle", mode="answer", deadline_ms=4000)
        told = running.client.get("/metrics").text
    assert reply["passages"] == plain["passages"]
    assert "queries" not in reply
    assert reply["answer"] == "Hold the power button [1]."
    assert len(reply["degraded"]) == 1
    assert reply["degraded"][0].startswith(f"{method}: ")
    assert f'rag_degraded_total{{bundle="",stage="{method}"}} 1.0' in told


def test_a_generator_that_keeps_no_deadline_is_cut_off(launch: Any) -> None:
    closed = threading.Event()

    class Stubborn:
        name = "stubborn"

        async def stream(self, prompt: Any, *, deadline: float) -> Any:
            import asyncio

            try:
                await asyncio.sleep(600)
                yield
            finally:
                closed.set()

        async def aclose(self) -> None:
            pass

    with launch(generator=Stubborn()) as running:
        reply = expand(running, "multi", deadline_ms=2000)
        assert reply["passages"]
        assert "share of the deadline" in reply["degraded"][0]
        assert closed.wait(30)


def test_a_client_that_leaves_cancels_the_expansion(launch: Any, endpoint: Any) -> None:
    endpoint.expansion = "hang"
    with launch(generator=endpoint.generator("fine")) as running:
        with _asked(running):
            assert endpoint.entered.wait(60)
        assert endpoint.left.wait(60)


def _asked(running: Any) -> socket.socket:
    """A connection on which a request has been sent and nothing been read."""
    data = json.dumps({"query": "lamp", "query_expansion": "multi"}).encode()
    head = f"POST /invocations HTTP/1.1\r\nhost: a\r\ncontent-length: {len(data)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", running.port), timeout=60)
    connection.sendall(head.encode() + data)
    return connection


@pytest.mark.parametrize("method", METHODS)
def test_without_an_endpoint_it_is_refused_by_name(server: Any, method: str) -> None:
    response = server.ask(query_expansion=method)
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert "RAG_GENERATOR" in message
    assert f"query_expansion is '{method}'" in message
    assert server.ask(query_expansion="none").status_code == 200


@pytest.mark.parametrize("value", ["all", "", None, ["multi"], True])
def test_an_unknown_expansion_is_400(server: Any, value: Any) -> None:
    response = server.ask(query_expansion=value)
    assert response.status_code == 400
    assert "query_expansion" in response.json()["error"]["message"]

"""What the log says of requests, and what it never says."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from rag import logs
from rag.service.access import Access

KEY = "key-of-team-a-000001"
KEYS = json.dumps({"keys": [{"name": "team-a", "key": KEY}]})
QUESTION = "my private question about the lamp"


class Log:
    def __init__(self) -> None:
        self.stream = io.StringIO()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def requests(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["logger"] == "rag.service.handling"]


@pytest.fixture
def log() -> Iterator[Log]:
    """The project's log lines at every level, as a service writes them."""
    made = Log()
    handler = logging.StreamHandler(made.stream)
    handler.setFormatter(logs.JsonLines())
    ours = logging.getLogger("rag")
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    yield made
    ours.removeHandler(handler)
    ours.setLevel(logging.NOTSET)


def test_each_request_has_a_line_where_that_is_asked_for(launch: Any, log: Log) -> None:
    with launch(logged="all", access=Access(KEYS)) as running:
        running.ask(mode="retrieve", request_id="r-1", api_key=KEY)
        running.ask(top_k=0, headers={"x-request-id": "r-2"})
        running.ask()
    good, bad, nobody = log.requests()
    assert (good["level"], good["message"]) == ("INFO", "POST /invocations 200")
    assert (good["request_id"], good["key"]) == ("r-1", "team-a")
    assert good["took_ms"] > 0
    assert (bad["request_id"], bad["error"]) == ("r-2", "invalid_request")
    assert (nobody["message"], nobody["error"]) == ("POST /invocations 401", "unauthorized")


def test_only_failures_have_one_by_default(launch: Any, log: Log) -> None:
    def fail(texts: Any) -> None:
        raise RuntimeError("broken")

    with launch() as running:
        running.ask(mode="retrieve")
        running.ask(top_k=0)
    with launch(before=fail) as running:
        running.ask(mode="retrieve")
    with launch(logged="none") as running:
        running.ask(top_k=0)
    assert [(line["level"], line["message"][-3:]) for line in log.requests()] == [
        ("INFO", "400"),
        ("WARNING", "500"),
    ]


def test_nothing_private_is_logged_at_any_level(launch: Any, log: Log, endpoint: Any) -> None:
    """Questions, documents and keys, through every kind of success and failure."""

    def fail(texts: Any) -> None:
        if any("poison" in text for text in texts):
            raise RuntimeError("broken")

    for behaviour in ("stepwise", "500", "garbage"):
        endpoint.go_on.set()
        generator = endpoint.generator(behaviour)
        with launch(generator=generator, before=fail, logged="all", access=Access(KEYS)) as running:
            for fields in (
                {},
                {"query_expansion": "multi"},
                {"on_generator_failure": "error"},
                {"stream": True},
                {"top_k": 0},
                {"filter": {"title": {"$near": QUESTION}}},
                {"nonsense": QUESTION},
                {"messages": [{"role": "user", "content": QUESTION}], "rerank": True},
            ):
                running.ask(QUESTION, api_key=KEY, **fields)
                running.ask(f"poison {QUESTION}", headers={"x-api-key": KEY}, **fields)
            running.ask(QUESTION, api_key=f"{KEY}-wrong")
            record = json.dumps({"query": QUESTION, "api_key": KEY}).encode()
            running.post(record + b"\n{" + record, "application/jsonlines")
            running.post(b"\xff" + record, "application/json")
    text = log.stream.getvalue()
    assert "POST /invocations 200" in text
    assert "POST /invocations 500" in text
    for private in (QUESTION, "power button", KEY, "sk-very-secret"):
        assert private not in text

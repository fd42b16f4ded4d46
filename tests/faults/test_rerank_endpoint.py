"""What a rerank endpoint can do wrong, and what each fault is called.

The server is a fake endpoint at the wire: its behaviour is the first part of the path.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from rag.errors import (
    ConfigurationError,
    RerankerFailure,
    RerankerProtocolError,
    RerankerThrottled,
    RerankerTimeout,
    RerankerUnavailable,
)
from rag.models.remote_reranker import RemoteReranker

TEXTS = ["the kettle", "reset the lamp", "휴가 규정"]
SECRET = "key-0123456789-secret"


@pytest.fixture
def connect(rerank_endpoint: Any) -> Iterator[Callable[..., RemoteReranker]]:
    """Rerankers that ask the fake endpoint to behave in one way; closed at the end."""
    opened: list[RemoteReranker] = []

    def make(behaviour: str, **options: Any) -> RemoteReranker:
        url = f"{rerank_endpoint.url}/{behaviour}"
        opened.append(RemoteReranker(url, api_key=SECRET, **options))
        return opened[-1]

    yield make
    rerank_endpoint.go_on.set()
    for reranker in opened:
        reranker.close()


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("tei", {"query": "휴가", "texts": TEXTS, "truncate": True}),
        (
            "jina",
            {
                "model": "m",
                "query": "휴가",
                "documents": TEXTS,
                "top_n": 3,
                "return_documents": False,
            },
        ),
        ("cohere", {"model": "m", "query": "휴가", "documents": TEXTS, "top_n": 3}),
    ],
)
def test_each_dialects_request_and_answer(
    connect: Callable[..., RemoteReranker], rerank_endpoint: Any, dialect: Any, expected: object
) -> None:
    scores = connect(dialect, dialect=dialect, model="m").score("휴가", TEXTS)
    np.testing.assert_array_equal(scores, np.array([0, 0, 1], dtype=np.float32))
    assert rerank_endpoint.bodies == [expected]
    assert rerank_endpoint.keys == [f"Bearer {SECRET}"]


def test_many_texts_are_several_requests_in_order(
    connect: Callable[..., RemoteReranker], rerank_endpoint: Any
) -> None:
    texts = [("lamp " if i % 3 else "kettle ") + str(i) for i in range(70)]
    scores = connect("tei").score("lamp", texts)
    assert sorted(len(body["texts"]) for body in rerank_endpoint.bodies) == [6, 32, 32]
    assert scores.tolist() == [float(i % 3 > 0) for i in range(70)]


@pytest.mark.parametrize(
    ("behaviour", "kind", "said"),
    [
        ("429", RerankerThrottled, "over its rate limit"),
        ("500", RerankerUnavailable, "failed .500."),
        ("503", RerankerUnavailable, "failed .503."),
        ("307", RerankerProtocolError, "answered 307; set its URL"),
        ("401", RerankerFailure, "refused the request .401."),
        ("413", RerankerFailure, "refused the request .413."),
        ("reset", RerankerUnavailable, "closed the connection"),
        ("cut", RerankerUnavailable, "closed the connection"),
        ("html", RerankerProtocolError, "not JSON"),
        ("map", RerankerProtocolError, "is not a list"),
        ("missing", RerankerProtocolError, "scores 2 of 3 passages, not the passage 1"),
        ("duplicate", RerankerProtocolError, "scores the passage 1 twice"),
        ("beyond", RerankerProtocolError, "has the index 3 for 3 passages"),
        ("negative", RerankerProtocolError, "has the index -1 for 3 passages"),
        ("text", RerankerProtocolError, "no finite score for the passage 0"),
        ("nan", RerankerProtocolError, "no finite score for the passage 0"),
        ("unlabelled", RerankerProtocolError, "has the index None"),
        ("jina", RerankerProtocolError, "is not a list; check its dialect"),
    ],
)
def test_every_fault_has_its_name(
    connect: Callable[..., RemoteReranker], behaviour: str, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        connect(behaviour).score("lamp", TEXTS)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("dialect", ["jina", "cohere"])
def test_another_dialects_answer_is_refused(
    connect: Callable[..., RemoteReranker], dialect: Any
) -> None:
    body_of_tei = connect("missing", dialect=dialect, model="m")
    with pytest.raises(RerankerProtocolError, match="not a map with results; check its dialect"):
        body_of_tei.score("lamp", TEXTS)


@pytest.mark.parametrize("behaviour", ["hang", "drip"])
def test_a_slow_endpoint_is_left_at_the_deadline(
    connect: Callable[..., RemoteReranker], behaviour: str
) -> None:
    slow = connect(behaviour)
    with pytest.raises(RerankerTimeout, match="had not answered at the deadline"):
        slow.score("lamp", TEXTS * 40, deadline=time.monotonic() + 0.1)
    with pytest.raises(RerankerTimeout):
        connect(behaviour, timeout_s=0.1).score("lamp", TEXTS * 40)


def test_an_endpoint_that_is_not_there(connect: Callable[..., RemoteReranker]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gone = RemoteReranker(f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(RerankerUnavailable, match="refused the connection; check that it runs"):
            gone.score("lamp", TEXTS)
        gone.close()


def test_it_recovers_after_a_fault(
    connect: Callable[..., RemoteReranker], rerank_endpoint: Any
) -> None:
    failing = [True]

    def score(query: str, texts: list[str]) -> list[float]:
        return [0.5] * (len(texts) - failing[0])

    rerank_endpoint.score = score
    reranker = connect("tei")
    with pytest.raises(RerankerProtocolError):
        reranker.score("lamp", TEXTS)
    failing[0] = False
    assert reranker.score("lamp", TEXTS).tolist() == [0.5, 0.5, 0.5]


def test_closing_ends_calls_under_way_and_refuses_new_ones(
    connect: Callable[..., RemoteReranker], rerank_endpoint: Any
) -> None:
    reranker = connect("hang")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(reranker.score, "lamp", TEXTS)
        while not rerank_endpoint.bodies:
            time.sleep(0.005)
        reranker.close()
        with pytest.raises(RerankerUnavailable, match="has been closed"):
            waiting.result(30)
    with pytest.raises(RerankerUnavailable, match="has been closed"):
        reranker.score("lamp", TEXTS)
    reranker.close()
    assert "rerank" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("ftp://host", {}, "must be http"),
        ("http://", {}, "must be http"),
        ("http://host:port", {}, "cannot be read"),
        ("http://host", {"dialect": "bm25"}, "not one of tei, jina, cohere"),
        ("http://host", {"dialect": "jina"}, "jina needs the name of a model"),
    ],
)
def test_what_cannot_be_an_endpoint_is_refused(url: str, options: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        RemoteReranker(url, **options)

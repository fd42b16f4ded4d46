"""What every reranker promises, asked of each; and that both local ones say the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import RerankerTimeout
from rag.models.load_reranker import RerankerSpec, load_reranker
from rag.models.onnx_reranker import OnnxReranker
from rag.models.reranker import Reranker
from rag.models.torch_reranker import TorchReranker

QUERIES = ("how do i reset the lamp?", "비밀번호는 언제 바꾸나요?")
TEXTS = (
    "hold the power button for ten seconds.",
    "비밀번호는 90일 마다.",
    "",
    "a",
    "the lamp has a warranty of three years. " * 30,
    "연차 휴가",
    "descale the kettle with vinegar every month",
)
KINDS = ("onnx", "torch", "tei", "jina", "cohere")


@pytest.fixture(scope="module")
def made(
    cross_encoder: Path, exported_cross_encoder: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Reranker]]:
    """One of each kind. The remote ones ask a fake endpoint that runs the ONNX model."""
    conftest = request.config.pluginmanager.get_plugin(
        str(Path(__file__).parents[1] / "conftest.py")
    )
    judge = OnnxReranker(exported_cross_encoder, threads=1)
    endpoint = conftest.FakeRerankEndpoint(lambda q, texts: judge.score(q, texts).tolist())
    endpoint.start()
    kinds: dict[str, Reranker] = {
        "onnx": judge,
        "torch": load_reranker(RerankerSpec("torch", path=cross_encoder)),
    }
    for dialect in ("tei", "jina", "cohere"):
        url = f"{endpoint.url}/{dialect}"
        kinds[dialect] = load_reranker(
            RerankerSpec("remote", url=url, dialect=dialect, model="tiny")
        )
    yield kinds.__getitem__
    for reranker in kinds.values():
        reranker.close()
        reranker.close()
    endpoint.stop()


@pytest.fixture(params=KINDS)
def reranker(request: pytest.FixtureRequest, made: Callable[[str], Reranker]) -> Reranker:
    return made(request.param)


@pytest.mark.parametrize("query", QUERIES)
def test_scores_are_float32_finite_and_differ(reranker: Reranker, query: str) -> None:
    scores = reranker.score(query, TEXTS)
    assert scores.dtype == np.float32
    assert scores.shape == (len(TEXTS),)
    assert np.isfinite(scores).all()
    assert ((scores > 0) & (scores < 1)).all()
    assert len(np.unique(scores)) == len(TEXTS)


def test_no_texts_no_scores(reranker: Reranker) -> None:
    scores = reranker.score("a", [])
    assert (scores.dtype, scores.shape) == (np.float32, (0,))


@pytest.mark.parametrize("query", QUERIES)
def test_scores_keep_the_order_of_the_texts(reranker: Reranker, query: str) -> None:
    one_by_one = [float(reranker.score(query, [text])[0]) for text in TEXTS]
    np.testing.assert_allclose(reranker.score(query, TEXTS), one_by_one, atol=1e-5)
    order = np.random.default_rng(7).permutation(len(TEXTS))
    shuffled = reranker.score(query, [TEXTS[i] for i in order])
    np.testing.assert_allclose(shuffled, np.array(one_by_one)[order], atol=1e-5)


def test_more_texts_than_one_request_or_batch_takes(reranker: Reranker) -> None:
    texts = [f"{word} {number}" for number in range(25) for word in ("lamp", "휴가", "kettle")]
    scores = reranker.score(QUERIES[0], texts)
    for place in (0, 31, 32, 63, 74):
        assert scores[place] == pytest.approx(
            float(reranker.score(QUERIES[0], [texts[place]])[0]), abs=1e-5
        )


def test_several_threads_get_their_own_scores(reranker: Reranker) -> None:
    expected = {query: reranker.score(query, TEXTS) for query in QUERIES}
    with ThreadPoolExecutor(4) as pool:
        queries = list(QUERIES) * 4
        for query, scores in zip(
            queries, pool.map(lambda q: reranker.score(q, TEXTS), queries), strict=True
        ):
            np.testing.assert_allclose(scores, expected[query], atol=1e-5)


def test_a_deadline_that_has_passed_is_a_timeout(reranker: Reranker) -> None:
    with pytest.raises(RerankerTimeout, match="at the deadline; raise it, or rerank fewer"):
        reranker.score("a", TEXTS, deadline=time.monotonic() - 1)
    assert len(reranker.score("a", TEXTS, deadline=time.monotonic() + 60)) == len(TEXTS)


def test_it_has_a_name_and_says_how_many_calls_it_takes(reranker: Reranker) -> None:
    assert reranker.name == "tiny"
    assert reranker.concurrency >= 1


@pytest.mark.parametrize("query", [*QUERIES, "", "why " * 500])
def test_all_say_the_same(made: Callable[[str], Reranker], query: str) -> None:
    expected = made("torch").score(query, TEXTS)
    for kind in KINDS:
        np.testing.assert_allclose(made(kind).score(query, TEXTS), expected, atol=1e-4)


@pytest.mark.parametrize("query", QUERIES)
def test_scores_are_those_of_sentence_transformers(
    made: Callable[[str], Reranker], query: str
) -> None:
    torch: Any = made("torch")
    texts = [text for text in TEXTS if len(text) < 50]
    expected = torch.model.predict([(query, text) for text in texts], show_progress_bar=False)
    for kind in KINDS:
        np.testing.assert_allclose(made(kind).score(query, texts), expected, atol=1e-4)


@pytest.mark.parametrize("kind", [OnnxReranker, TorchReranker])
def test_a_small_budget_of_tokens_changes_no_score(
    kind: Any, cross_encoder: Path, exported_cross_encoder: Path
) -> None:
    folder = cross_encoder if kind is TorchReranker else exported_cross_encoder
    small, large = kind(folder, max_batch_tokens=1), kind(folder)
    np.testing.assert_allclose(
        small.score(QUERIES[0], TEXTS), large.score(QUERIES[0], TEXTS), atol=1e-5
    )

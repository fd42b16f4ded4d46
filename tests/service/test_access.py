"""API keys on the wire: who may ask, and what they never see."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from indexer.build import BuildOptions, build
from indexer.source import Source
from rag.retrieval.opening import open_retriever
from rag.service.access import Access

OF_A, OF_B, ELSEWHERE = "key-of-team-a-000001", "key-of-team-b-000001", "key-of-nobody-000001"
KEYS = {
    "keys": [
        {"name": "team-a", "key": OF_A, "filter": {"tenant": "a"}},
        {
            "name": "team-b",
            "sha256": hashlib.sha256(OF_B.encode()).hexdigest(),
            "filter": {"acl": {"$in": ["hr", "everyone"]}},
        },
        {"name": "elsewhere", "key": ELSEWHERE, "bundles": ["another"]},
    ]
}
ACL = {
    "a1": {"tenant": "a", "acl": ["sales"]},
    "a2": {"tenant": "a", "acl": ["hr", "sales"]},
    "b1": {"tenant": "b", "acl": ["everyone"]},
    "b2": {"tenant": "b", "acl": ["board"]},
}
SEEN = {OF_A: {"a1", "a2"}, OF_B: {"a2", "b1"}}
ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"


@pytest.fixture(scope="module")
def guarded(launch: Any, encoder_cache: Path, tmp_path_factory: Any) -> Iterator[Any]:
    """A service over documents of two tenants, whose keys are above."""
    folder = tmp_path_factory.mktemp("tenants")
    (folder / "documents").mkdir()
    for name, metadata in ACL.items():
        file = folder / "documents" / f"{name}.md"
        file.write_text(f"The annual report of {name} says that sales went up.")
        sidecar = {"metadataAttributes": metadata}
        file.with_name(f"{name}.md.metadata.json").write_text(json.dumps(sidecar))
    options = BuildOptions(backend="onnx", encoder_cache=encoder_cache)
    bundle = build(Source(str(folder / "documents")), folder / "bundle", options).folder
    with launch(opened=open_retriever(str(bundle)), access=Access(json.dumps(KEYS))) as running:
        yield running


def seen(reply: dict[str, Any]) -> set[str]:
    return {passage["doc_id"].removesuffix(".md") for passage in reply["passages"]}


def test_no_key_and_a_wrong_one_are_401(guarded: Any) -> None:
    for fields in ({}, {"api_key": "nope"}, {"headers": {"authorization": f"Basic {OF_A}"}}):
        refused = guarded.ask("annual report", **fields)
        assert refused.status_code == 401
        assert refused.json()["error"]["type"] == "unauthorized"
        assert refused.headers["www-authenticate"] == "Bearer"
        assert "nope" not in refused.text


def test_a_key_for_another_bundle_is_403(guarded: Any) -> None:
    refused = guarded.ask("annual report", api_key=ELSEWHERE)
    assert refused.status_code == 403
    assert refused.json()["error"]["type"] == "forbidden"


def test_ping_and_metrics_need_no_key(guarded: Any) -> None:
    assert guarded.client.get("/ping").status_code == 200
    assert guarded.client.get("/metrics").status_code == 200


@pytest.mark.parametrize(
    "carried",
    [
        lambda key: {"headers": {"authorization": f"Bearer {key}"}},
        lambda key: {"headers": {"x-api-key": key}},
        lambda key: {"headers": {ATTRIBUTES: f"tenant=b; api_key={key}"}},
        lambda key: {"api_key": key},
        lambda key: {"api_key": key, "headers": {"authorization": "Bearer of-a-gateway"}},
    ],
)
def test_a_key_may_ride_where_it_gets_through(guarded: Any, carried: Any) -> None:
    for key, documents in SEEN.items():
        response = guarded.ask("annual report", mode="retrieve", top_k=50, **carried(key))
        assert seen(response.json()) == documents
        assert key not in response.text
        assert key not in str(response.headers)


@pytest.mark.parametrize(
    "where",
    [
        None,
        {},
        {"tenant": "b"},
        {"tenant": {"$exists": True}},
        {"$or": [{"tenant": "a"}, {"tenant": "b"}]},
        {"$not": {"tenant": "a"}},
        {"acl": {"$in": ["hr", "sales", "board", "everyone"]}},
        {"doc_id": {"$ne": "x"}},
    ],
)
def test_no_filter_reaches_past_the_claim(guarded: Any, where: Any) -> None:
    for key, documents in SEEN.items():
        response = guarded.ask("annual report of b2", filter=where, top_k=50, api_key=key)
        assert response.status_code == 200
        assert seen(response.json()) <= documents


def test_the_claim_holds_in_streams(guarded: Any) -> None:
    frames = guarded.frames("annual report of b2", top_k=50, api_key=OF_A)
    assert seen(frames[0]) == SEEN[OF_A]


def openai_client(server: Any, key: str) -> Any:
    openai = pytest.importorskip("openai", reason="install rag-containers[dev]")
    return openai.OpenAI(
        base_url=f"{server.url}/v1", api_key=key, max_retries=0,
        http_client=httpx2.Client(trust_env=False),
    )  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", [None, {"tenant": "b"}, {"$not": {"tenant": "a"}}])
def test_the_claim_holds_in_chat_completions(guarded: Any, where: Any, stream: bool) -> None:
    messages = [{"role": "user", "content": "annual report of b2"}]
    for key, documents in SEEN.items():
        made = openai_client(guarded, key).chat.completions.create(
            model="any", messages=messages, stream=stream,
            extra_body={"rag": {"top_k": 50, "filter": where}},
        )  # fmt: skip
        plain = guarded.ask("annual report of b2", filter=where, top_k=50, api_key=key).json()
        rag = next(iter(made)).rag if stream else made.rag
        assert rag["passages"] == plain["passages"]
        assert seen(rag) <= documents
        assert where is not None or seen(rag) == documents


def test_chat_and_its_models_need_a_key_for_this_bundle(guarded: Any) -> None:
    openai = pytest.importorskip("openai", reason="install rag-containers[dev]")
    messages = [{"role": "user", "content": "annual report"}]
    for key, error in (("nope", openai.AuthenticationError), (ELSEWHERE, openai.APIStatusError)):
        for stream in (False, True):
            with pytest.raises(error) as told:
                openai_client(guarded, key).chat.completions.create(
                    model="any", messages=messages, stream=stream
                )
            assert told.value.status_code == (401 if key == "nope" else 403)
    with pytest.raises(openai.AuthenticationError):
        openai_client(guarded, "nope").models.list()
    refused = guarded.client.get("/v1/models")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert refused.json()["error"]["type"] == "authentication_error"
    listed = {key: openai_client(guarded, key).models.list() for key in (OF_A, ELSEWHERE)}
    assert [model.id for model in listed[OF_A]] == ["extractive"]
    assert list(listed[ELSEWHERE]) == []


def test_a_bad_filter_is_told_without_the_claim(guarded: Any) -> None:
    refused = guarded.ask("annual report", filter={"year": {"$near": 1}}, api_key=OF_A)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith("filter.year.$near")


def test_each_record_has_a_key_or_the_headers(guarded: Any) -> None:
    records = [{"api_key": OF_A}, {"api_key": OF_B}, {}, {"api_key": ELSEWHERE}]
    question = {"query": "annual report", "mode": "retrieve", "top_k": 50}
    body = "\n".join(json.dumps(question | record) for record in records).encode()
    lines = guarded.post(body, "application/jsonlines").text.splitlines()
    a, b, nobody, elsewhere = map(json.loads, lines)
    assert (seen(a), seen(b)) == (SEEN[OF_A], SEEN[OF_B])
    assert nobody["error"]["type"] == "unauthorized"
    assert elsewhere["error"]["type"] == "forbidden"
    lines = guarded.post(body, "application/jsonlines", **{"x-api-key": OF_A}).text.splitlines()
    assert [seen(json.loads(line)) for line in lines[:3]] == [SEEN[OF_A], SEEN[OF_B], SEEN[OF_A]]
    refused = guarded.post(body, "application/jsonlines", **{"x-api-key": "nope"})
    assert refused.status_code == 401

"""Checklist, Multi-model: many bundles in one process, loaded and unloaded while it serves."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import psutil
import pytest

from rag.errors import InvalidRequest, OutOfMemory
from rag.service import models
from rag.service.memory import Footprint, Ledger

MIB = 1 << 20


@pytest.fixture
def folder(bundle_folder: Path, tmp_path: Path) -> Path:
    """The platform's folder of models: three are the same bundle, one is damaged."""
    made = tmp_path / "models"
    for name in ("a", "b", "c", "damaged"):
        shutil.copytree(bundle_folder, made / name / "model", copy_function=os.link)
    chunks = made / "damaged" / "model" / "chunks.arrow"
    data = chunks.read_bytes()
    chunks.unlink()
    chunks.write_bytes(data[:-1])
    return made


@pytest.fixture
def multi(spawn: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    def start(**environment: str) -> Any:
        process = spawn(SAGEMAKER_MULTI_MODEL="true", RAG_MODELS_DIR=str(folder), **environment)
        process.until(200)
        return process

    return start


def load(process: Any, name: str, url: Path | str) -> Any:
    body = {"model_name": name, "url": str(url)}
    return process.client.post("/models", json=body)


def ask(process: Any, name: str, query: str = "reset the lamp", **headers: str) -> Any:
    body = {"query": query, "mode": "retrieve", "top_k": 1}
    path = f"/models/{quote(name, safe='')}/invoke"
    return process.client.post(path, json=body, headers=headers)


def error_of(response: Any) -> str:
    return str(response.json()["error"]["type"])


def test_items_41_to_45_a_life_of_models(multi: Callable[..., Any], folder: Path) -> None:
    process = multi()
    assert process.client.get("/models").json() == {"models": []}  # 41
    assert process.client.get("/ping").content == b""
    first = folder / "a" / "model"
    loaded = load(process, "a", first)  # 42
    assert (loaded.status_code, loaded.json()) == (200, {"modelName": "a", "modelUrl": str(first)})
    again = load(process, "a", first)
    assert (again.status_code, error_of(again)) == (409, "bundle_loaded")
    for url in (folder / "none", "/etc", folder / ".." / "bundle", "s3://bucket/x", folder):
        assert load(process, "x", url).status_code == 404, url
    assert load(process, "x", folder / "damaged" / "model").status_code == 404
    assert load(process, "", first).status_code == 400
    opaque = "d41d8cd9/8f00 b204é?"
    assert load(process, opaque, folder / "b" / "model").status_code == 200  # 45
    for name in ("a", opaque):
        answered = ask(process, name)
        assert answered.json()["passages"][0]["doc_id"] == "en/lamp.md"
        assert process.client.get(f"/models/{quote(name, safe='')}").json()["modelName"] == name
    listed = process.client.get("/models").json()["models"]
    assert [model["modelName"] for model in listed] == sorted(["a", opaque])
    missing = ask(process, "nobody")
    assert (missing.status_code, error_of(missing)) == (404, "no_such_bundle")
    body = {"query": "reset the lamp", "mode": "retrieve"}
    by_header = {"x-amzn-sagemaker-target-model": "a"}
    assert process.client.post("/invocations", json=body, headers=by_header).status_code == 200
    assert process.client.post("/invocations", json=body).status_code == 404
    told = process.client.get("/metrics").text
    assert 'rag_requests_total{bundle="a",status="200"} 2.0' in told
    assert 'rag_requests_total{bundle="other",status="404"} 1.0' in told
    assert "rag_bundles 2.0" in told
    assert process.client.delete("/models/a").status_code == 200  # 44
    assert ask(process, "a").status_code == 404
    assert process.client.delete("/models/a").status_code == 404
    assert process.client.get("/models/a").status_code == 404
    assert 'bundle="a"' not in process.client.get("/metrics").text
    assert ask(process, opaque).status_code == 200


def test_items_43_and_44_memory_is_counted_and_given_back(
    multi: Callable[..., Any], folder: Path
) -> None:
    process = multi()
    inside = psutil.Process(process.process.pid)
    assert load(process, "a", folder / "a" / "model").status_code == 200
    assert process.client.delete("/models/a").status_code == 200
    before, fds = inside.memory_info().rss, inside.num_fds()  # libraries stay
    assert load(process, "a", folder / "a" / "model").status_code == 200
    one = inside.memory_info().rss - before
    for name in ("b", "c"):
        assert load(process, name, folder / name / "model").status_code == 200
        assert ask(process, name).status_code == 200
    three = inside.memory_info().rss - before
    assert one > 80 * MIB
    assert three < 1.5 * one, "the encoder is shared"
    for name in ("a", "b", "c"):
        assert process.client.delete(f"/models/{name}").status_code == 200
    after = inside.memory_info().rss - before
    assert after < 0.4 * one
    assert inside.num_fds() <= fds + 2


def test_item_43_what_does_not_fit_is_507_and_the_others_serve(
    multi: Callable[..., Any], folder: Path
) -> None:
    big = folder / "c" / "model" / "manifest.json"
    manifest = json.loads(big.read_bytes())
    manifest["files"]["dense/more"] = {"size": 4096 * MIB, "sha256": "0" * 64}
    big.unlink()
    big.write_text(json.dumps(manifest))
    process = multi(RAG_MODELS_MEMORY_BYTES=str(4096 * MIB))
    assert load(process, "a", folder / "a" / "model").status_code == 200
    refused = load(process, "c", folder / "c" / "model")
    assert (refused.status_code, error_of(refused)) == (507, "out_of_memory")
    assert "RAG_MODELS_MEMORY_BYTES" in refused.json()["error"]["message"]
    assert ask(process, "a").status_code == 200
    assert load(process, "b", folder / "b" / "model").status_code == 200
    assert process.ping() == 200


def test_keys_may_be_bound_to_a_bundle(spawn: Callable[..., Any], folder: Path) -> None:
    keys = {
        "keys": [
            {"name": "tenant-a", "key": "key-of-tenant-a-0001", "bundles": ["a"]},
            {"name": "operator", "key": "key-of-operator-0001", "manage": True},
        ]
    }
    process = spawn(
        RAG_MULTI_MODEL="true", RAG_MODELS_DIR=str(folder), RAG_API_KEYS=json.dumps(keys)
    )
    process.until(200)
    process.client.headers["x-api-key"] = "key-of-operator-0001"
    for name in ("a", "b"):
        assert load(process, name, folder / name / "model").status_code == 200
    tenant = {"x-api-key": "key-of-tenant-a-0001"}
    assert ask(process, "a", **tenant).status_code == 200
    for name in ("b", "not-there"):
        assert ask(process, name, **tenant).status_code == 403
    assert process.client.delete("/models/a", headers=tenant).status_code == 403
    assert process.client.get("/models", headers={"x-api-key": "nope"}).status_code == 401


TENANT, OPERATOR = "key-of-tenant-a-0001", "key-of-operator-0001"


def openai_client(process: Any, key: str) -> Any:
    openai = pytest.importorskip("openai", reason="install rag-containers[dev]")
    return openai.OpenAI(
        base_url=f"{process.client.base_url}/v1", api_key=key, max_retries=0,
        http_client=httpx2.Client(trust_env=False, timeout=60),
    )  # fmt: skip


def test_chat_completions_name_a_bundle_and_keep_to_the_key(
    spawn: Callable[..., Any], folder: Path
) -> None:
    """By every way to ask a bundle: a tenant's key reaches its bundle, and there its passages."""
    openai = pytest.importorskip("openai", reason="install rag-containers[dev]")
    claim = {"lang": {"$eq": "ko"}}
    keys = [
        {"name": "tenant", "key": TENANT, "bundles": ["a"], "filter": claim},
        {"name": "operator", "key": OPERATOR, "manage": True},
    ]
    process = spawn(
        RAG_MULTI_MODEL="true",
        RAG_MODELS_DIR=str(folder),
        RAG_API_KEYS=json.dumps({"keys": keys}),
    )
    process.until(200)
    process.client.headers["x-api-key"] = OPERATOR
    for name in ("a", "b"):
        assert load(process, name, folder / name / "model").status_code == 200
    ids = {
        key: [model.id for model in openai_client(process, key).models.list()]
        for key in (TENANT, OPERATOR)
    }
    assert ids == {TENANT: ["a"], OPERATOR: ["a", "b"]}
    messages = [{"role": "user", "content": "How do I reset the lamp?"}]

    def chat(key: str, model: str, **fields: Any) -> Any:
        return openai_client(process, key).chat.completions.create(
            model=model, messages=messages, **fields
        )

    def languages(rag: Any) -> set[str]:
        return {passage["doc_id"].split("/")[0] for passage in rag["passages"]}

    assert "en" in languages(chat(OPERATOR, "b").rag)
    made = chat(TENANT, "a")
    assert made.model == "a"
    assert (
        languages(made.rag) == languages(next(iter(chat(TENANT, "a", stream=True))).rag) == {"ko"}
    )
    body = {"query": "How do I reset the lamp?"}
    with_key = {"x-api-key": TENANT}
    for path, named in (("/models/a/invoke", ""), ("/invocations", "a")):
        headers = with_key | {"x-amzn-sagemaker-target-model": named}
        whole = process.client.post(path, json=body, headers=headers)
        assert languages(whole.json()) == {"ko"}
        streamed = process.client.post(path, json=body | {"stream": True}, headers=headers)
        assert languages(json.loads(streamed.text.splitlines()[0])) == {"ko"}
        lines = process.client.post(
            path,
            content=json.dumps(body),
            headers=headers | {"content-type": "application/jsonlines"},
        )
        assert languages(json.loads(lines.text)) == {"ko"}
    for stream in (False, True):
        for name in ("b", "not-there"):
            with pytest.raises(openai.PermissionDeniedError):
                chat(TENANT, name, stream=stream)
        with pytest.raises(openai.NotFoundError):
            chat(OPERATOR, "not-there", stream=stream)
        with pytest.raises(openai.AuthenticationError):
            chat("nope-nope-nope-nope", "a", stream=stream)
    told = process.client.get("/metrics").text
    assert 'rag_requests_total{bundle="a",status="200"} 8.0' in told
    assert 'rag_requests_total{bundle="b",status="403"} 2.0' in told


def test_the_ledger_counts_a_shared_encoder_once() -> None:
    resident = [100 * MIB]
    ledger = Ledger(1000 * MIB, lambda: resident[0])
    small = Footprint(100 * MIB, 200 * MIB, "e1")
    ledger.add(small)
    ledger.add(small)
    assert ledger.used_bytes == 500 * MIB
    with pytest.raises(OutOfMemory, match="needs 600 MiB and 500 MiB are left of 1000"):
        ledger.add(Footprint(400 * MIB, 200 * MIB, "e2"))
    measured = ledger.correct(small, 150 * MIB)
    assert ledger.used_bytes == 550 * MIB
    assert ledger.correct(measured, 10 * MIB) == measured
    ledger.remove(measured)
    assert ledger.used_bytes == 400 * MIB
    ledger.remove(small)
    assert ledger.used_bytes == 100 * MIB
    resident[0] = 600 * MIB  # what libraries have kept
    with pytest.raises(OutOfMemory, match="needs 500 MiB and 400 MiB are left"):
        ledger.add(Footprint(400 * MIB, 100 * MIB, "e1"))


def test_item_45_pages_hold_every_name_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "PAGE", 3)
    made = models.Models(None, Ledger(0), Path("/"), encoder=("onnx", "float32"))  # type: ignore[arg-type]
    names = [f"{n}é/" for n in range(10)]
    for name in names:
        made._models[name] = (models.Model(name, "/"), Footprint(0, 0, ""))
    seen: list[str] = []
    token: str | None = None
    while True:
        page = made.page(token)
        seen += [model.name for model in page.models]
        if (token := page.next_token) is None:
            break
        assert len(page.models) == 3
    assert seen == sorted(names)
    with pytest.raises(InvalidRequest, match="next_page_token"):
        made.page("not a token!")

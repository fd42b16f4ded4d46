"""Checklist, Multi-model: many bundles in one container, as a multi-model endpoint manages them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sagemaker_local.engine import Mount
from sagemaker_local.hosting import Reply

MARGIN = 24 * 2**20
"""Bytes; far more than two processes that do the same differ by."""
JSON = {"content-type": "application/json"}
NAMES = ["a", "tenant/b c", "모델-3", "4f9d-x", "e"]
"""Names are opaque: the platform makes them of hashes, people of anything."""


class Manager:
    """A multi-model endpoint, as the platform speaks to it."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.endpoint = service.endpoint

    def load(self, name: str, url: str) -> Reply:
        body = json.dumps({"model_name": name, "url": url}).encode()
        return self.endpoint.send("POST", "/models", body, JSON)

    def unload(self, name: str) -> int:
        return int(self.endpoint.send("DELETE", f"/models/{quoted(name)}").status)

    def ask(self, name: str) -> Reply:
        body = b'{"query": "reset the lamp", "mode": "retrieve"}'
        return self.endpoint.send("POST", f"/models/{quoted(name)}/invoke", body, JSON)

    def names(self) -> list[str]:
        found, token = [], ""
        while True:
            page = self.endpoint.send(
                "GET", f"/models?next_page_token={quoted(token)}" if token else "/models"
            ).json()
            found += [model["modelName"] for model in page["models"]]
            token = page.get("nextPageToken") or ""
            if not token:
                return found

    def memory(self, kind: str = "RssAnon") -> int:
        """Bytes of process 1: its own, or (VmRSS) with mapped files."""
        status = self.service.container.execute("cat", "/proc/1/status")
        return int(status.split(f"{kind}:")[1].split()[0]) * 1024


def quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


@pytest.fixture(scope="module")
def place(bundle: Path) -> list[Mount]:
    """The bundle under the folder that the platform uses for a model."""
    return [Mount(bundle, f"/opt/ml/models/{n}/model", read_only=True) for n in range(3)]


@pytest.fixture(scope="module")
def large(make_bundle: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of one passage whose document has metadata of 2 * MARGIN bytes."""
    documents = tmp_path_factory.mktemp("large")
    (documents / "lamp.md").write_text("Hold the button to reset the lamp.", encoding="utf-8")
    words = " ".join(f"{number:08x}" for number in range(2 * MARGIN // 9 + 1))
    sidecar = json.dumps({"metadataAttributes": {"notes": words}})
    (documents / "lamp.md.metadata.json").write_text(sidecar, encoding="utf-8")
    documents.chmod(0o755)
    return make_bundle(documents)


@pytest.fixture
def many(serve: Callable[..., Any], place: list[Mount]) -> Iterator[Manager]:
    with serve(None, SAGEMAKER_MULTI_MODEL="true", mounts=place) as service:
        yield Manager(service)


def url(number: int) -> str:
    return f"/opt/ml/models/{number}/model"


def test_item_41_without_models_ping_is_200_and_the_list_is_empty(many: Manager) -> None:
    assert many.endpoint.ping() == 200
    assert many.names() == []


def test_item_42_load_is_200_again_409_and_a_bad_path_404(many: Manager) -> None:
    assert many.load("a", url(0)).status == 200
    assert many.load("a", url(0)).status == 409
    assert many.load("b", "/opt/ml/models/none/model").status == 404
    assert many.ask("a").json()["passages"][0]["doc_id"] == "en/lamp.md"
    assert many.endpoint.ping() == 200


def test_item_43_what_does_not_fit_is_507_and_others_still_serve(
    serve: Callable[..., Any], place: list[Mount], large: Path, many: Manager
) -> None:
    mounts = [*place, Mount(large, "/opt/ml/models/large/model", read_only=True)]
    size = (large / "documents.arrow").stat().st_size
    assert size >= 2 * MARGIN
    assert many.load("one", url(0)).status == 200
    many.ask("one")
    # What small bundles need; the large one needs MARGIN more at least, and has half as much.
    cap = many.memory("VmRSS") + size // 2
    multi = {"SAGEMAKER_MULTI_MODEL": "true", "RAG_MODELS_MEMORY_BYTES": str(cap)}
    with serve(None, mounts=mounts, **multi) as service:
        capped = Manager(service)
        assert capped.load("small", url(0)).status == 200
        refused = capped.load("large", "/opt/ml/models/large/model")
        assert refused.status == 507
        assert "RAG_MODELS_MEMORY_BYTES" in refused.json()["error"]["message"]
        assert capped.ask("large").status == 404
        assert capped.load("other", url(1)).status == 200
        assert capped.ask("small").status == capped.ask("other").status == 200
        assert capped.names() == ["other", "small"]
        assert capped.endpoint.ping() == 200
    # It is the cap that refused it.
    multi["RAG_MODELS_MEMORY_BYTES"] = str(cap + 2 * size)
    with serve(None, mounts=mounts, **multi) as service:
        roomy = Manager(service)
        assert roomy.load("small", url(0)).status == 200
        assert roomy.load("large", "/opt/ml/models/large/model").status == 200
        assert roomy.ask("large").status == 200


def test_item_44_delete_frees_memory_then_404(many: Manager) -> None:
    assert many.load("kept", url(0)).status == 200
    many.ask("kept")
    assert many.load("a", url(1)).status == 200
    many.ask("a")
    held = many.memory()
    assert many.unload("a") == 200
    assert many.memory() <= held
    assert many.unload("a") == 404
    assert many.ask("a").status == 404
    assert many.endpoint.send("GET", "/models/a").status == 404
    assert many.ask("kept").status == 200


def test_item_45_names_are_opaque_and_listed_page_by_page(many: Manager) -> None:
    for number, name in enumerate(NAMES):
        assert many.load(name, url(number % 3)).status == 200
        assert many.ask(name).status == 200
        stated = many.endpoint.send("GET", f"/models/{quoted(name)}").json()
        assert stated["modelName"] == name
        assert stated["modelUrl"] == url(number % 3)
    assert sorted(many.names()) == sorted(NAMES)

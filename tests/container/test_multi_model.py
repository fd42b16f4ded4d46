"""Checklist, Multi-model: many bundles in one container, as a multi-model endpoint manages them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sagemaker_local.engine import Mount
from sagemaker_local.hosting import Reply

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
    serve: Callable[..., Any], place: list[Mount], many: Manager
) -> None:
    assert many.load("one", url(0)).status == 200
    many.ask("one")
    # As much as one bundle takes, so that few more fit.
    cap = str(many.memory("VmRSS"))
    setting = {"SAGEMAKER_MULTI_MODEL": "true", "RAG_MODELS_MEMORY_BYTES": cap}
    with serve(None, mounts=place, **setting) as service:
        capped = Manager(service)
        statuses = []
        for number in range(60):
            statuses.append(capped.load(f"m{number}", url(number % 3)).status)
            if statuses[-1] != 200:
                break
        assert statuses[0] == 200
        assert statuses[-1] == 507
        assert capped.ask("m0").status == 200
        assert capped.endpoint.ping() == 200


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

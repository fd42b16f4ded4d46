"""Checklist, Start and Health: what /ping says, and when."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest


@pytest.fixture
def damaged(bundle_folder: Path, tmp_path: Path) -> Path:
    """A copy of the bundle with one bit of its chunks flipped."""
    copy = tmp_path / "damaged"
    shutil.copytree(bundle_folder, copy, copy_function=os.link)
    chunks = copy / "chunks.arrow"
    data = bytearray(chunks.read_bytes())
    data[len(data) // 2] ^= 1
    chunks.unlink()
    chunks.write_bytes(data)
    return copy


def test_item_02_an_unknown_verb_is_one_line_and_a_failure() -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "rag", "frobnicate"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert "frobnicate" in done.stderr


def test_item_04_the_platforms_port_is_bound_and_no_other(
    spawn: Callable[..., Any], bundle_folder: Path
) -> None:
    process = spawn(RAG_BUNDLE=str(bundle_folder))
    other = spawn(
        RAG_BUNDLE=str(bundle_folder),
        RAG_PORT=str(process.port + 1),
        SAGEMAKER_BIND_TO_PORT=str(process.port + 2),
    )
    other.client.base_url = httpx2.URL(f"http://127.0.0.1:{process.port + 2}")
    other.until(200)
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://127.0.0.1:{process.port + 1}/ping")
    process.until(200)


def test_item_07_loading_is_503_with_an_empty_body(launch: Any) -> None:
    with launch(loaded=False) as running:
        for method in ("GET", "POST"):
            response = running.client.request(method, "/ping")
            assert (response.status_code, response.content) == (503, b"")
        refused = running.ask()
        assert refused.status_code == 503
        assert refused.json()["error"]["type"] == "not_ready"


def test_item_08_ready_is_200_with_an_empty_body(server: Any) -> None:
    for method in ("GET", "POST"):
        response = server.client.request(method, "/ping", headers={"user-agent": "AHC/2.0"})
        assert (response.status_code, response.content) == (200, b"")


def test_item_09_ping_does_not_wait_behind_work(launch: Any) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def block(texts: object) -> None:
        entered.set()
        go_on.wait(60)

    with launch(before=block) as running, ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(running.ask, mode="retrieve") for _ in range(20)]
        try:
            assert entered.wait(60)
            for _ in range(5):
                assert running.client.get("/ping", timeout=2).status_code == 200
            assert not any(future.done() for future in asked)
        finally:
            go_on.set()
        assert {future.result().status_code for future in asked} == {200}


def test_a_stalled_batch_makes_the_service_unhealthy(launch: Any) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def block(texts: object) -> None:
        entered.set()
        go_on.wait(60)

    with launch(before=block, stalled_after_s=0.05) as running, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(running.ask, mode="retrieve")
        try:
            assert entered.wait(60)
            while running.client.get("/ping").status_code != 503:
                pass
        finally:
            go_on.set()
        assert asked.result().status_code == 200
        while running.client.get("/ping").status_code != 200:
            pass


def test_item_10_a_damaged_bundle_ends_the_process_and_names_the_file(
    spawn: Callable[..., Any], damaged: Path
) -> None:
    process = spawn(RAG_BUNDLE=str(damaged))
    statuses = set()
    while process.process.poll() is None:
        statuses.add(process.ping())
    assert process.process.returncode == 1
    assert 200 not in statuses
    assert any("chunks.arrow" in line["message"] for line in process.lines())


def test_item_10_a_missing_bundle_never_gives_200(
    spawn: Callable[..., Any], tmp_path: Path
) -> None:
    process = spawn(RAG_BUNDLE=str(tmp_path / "none"), RAG_EXIT_ON_LOAD_FAILURE="false")
    process.until(503)
    while not any(line["level"] == "CRITICAL" for line in process.lines()):
        assert process.ping() == 503
    assert process.ping() == 503
    assert str(tmp_path / "none") in process.log.read_text()
    refused = process.client.post("/invocations", json={"query": "x"})
    assert refused.status_code == 503
    process.process.terminate()
    assert process.process.wait(30) == 0


def test_item_11_a_dead_worker_is_recovered(launch: Any) -> None:
    deaths = iter([True, True])

    def die(texts: object) -> None:
        if next(deaths, False):
            raise SystemExit(7)

    with launch(before=die) as running:
        for _ in range(2):
            failed = running.ask(mode="retrieve")
            assert failed.status_code == 500
            assert failed.json()["error"]["type"] == "model_failure"
        assert running.ask(mode="retrieve").status_code == 200
        assert running.client.get("/ping").status_code == 200


def test_item_12_the_platforms_host_header_is_accepted(server: Any) -> None:
    response = server.client.get("/ping", headers={"host": "model.aws.local:8080"})
    assert response.status_code == 200
    assert server.ask(headers={"host": "model.aws.local:8080"}).status_code == 200


def test_a_taken_port_is_one_line(spawn: Callable[..., Any], server: Any) -> None:
    process = spawn(RAG_PORT=str(server.port))
    assert process.process.wait(120) == 1
    last = process.log.read_text().splitlines()[-1]
    assert last.startswith("rag: cannot listen on")

"""A root that changes under a running service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from indexer.build import BuildOptions, build
from indexer.source import Source
from rag.index.manifest import parse
from rag.index.pointer import VERSIONS
from rag.index.root import Root

FACTS = {"one": "The lamp glows red.", "two": "The lamp glows green.", "three": "It glows blue."}


@pytest.fixture(scope="module")
def generations(encoder_cache: Path, tmp_path_factory: Any) -> dict[str, Path]:
    """Three small bundles of different documents, and one encoder."""
    made = {}
    for name, fact in FACTS.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / "documents").mkdir()
        (folder / "documents" / f"{name}.md").write_text(f"# Lamp\n\n{fact} Hold the power button.")
        options = BuildOptions(backend="onnx", encoder_cache=encoder_cache)
        made[name] = build(Source(str(folder / "documents")), folder / "bundle", options).folder
    return made


class Published:
    """A root whose versions are made of links to the bundles' files."""

    def __init__(self, folder: Path, generations: dict[str, Path]) -> None:
        self.root = Root(str(folder))
        self.folder = folder
        self.ids = {}
        for name, bundle in generations.items():
            version = parse((bundle / "manifest.json").read_bytes(), name).version
            shutil.copytree(bundle, folder / VERSIONS / version, copy_function=os.link)
            self.ids[name] = version

    def point(self, name: str) -> None:
        self.root.point(self.ids[name], self.root.current())

    def damage(self, name: str) -> Path:
        """Flips a bit of a version's passages."""
        chunks = self.folder / VERSIONS / self.ids[name] / "chunks.arrow"
        data = bytearray(chunks.read_bytes())
        data[len(data) // 2] ^= 1
        chunks.unlink()
        chunks.write_bytes(data)
        return chunks


@pytest.fixture
def published(tmp_path: Path, generations: dict[str, Path]) -> Published:
    made = Published(tmp_path / "root", generations)
    made.point("one")
    return made


@pytest.fixture
def follow(spawn: Callable[..., Any], published: Published) -> Callable[..., Any]:
    def start(**environment: str) -> Any:
        settings = {"RAG_BUNDLE": published.root.uri, "RAG_FOLLOW_INTERVAL_S": "0.1"}
        process = spawn(**(settings | environment))
        process.until(200)
        return process

    return start


def version_of(process: Any) -> str:
    reply = process.client.post("/invocations", json={"query": "lamp", "mode": "retrieve"})
    assert reply.status_code == 200, reply.text
    made = reply.json()
    (found,) = {passage["doc_id"].removesuffix(".md") for passage in made["passages"]}
    assert FACTS[found] in made["passages"][0]["text"]
    return str(made["index_version"])


def until(process: Any, version: str) -> None:
    end = time.monotonic() + 120
    while version_of(process) != version:
        assert time.monotonic() < end, process.log.read_text()
        time.sleep(0.02)


def metric(process: Any, name: str) -> float:
    for line in process.client.get("/metrics").text.splitlines():
        if line.startswith(name):
            return float(line.rpartition(" ")[2])
    return 0.0


def until_metric(process: Any, name: str, value: float) -> None:
    end = time.monotonic() + 120
    while metric(process, name) < value:
        assert time.monotonic() < end, process.log.read_text()
        time.sleep(0.02)


def test_a_stream_ends_with_the_version_that_it_began_with(
    follow: Callable[..., Any], published: Published, endpoint: Any
) -> None:
    process = follow(
        RAG_GENERATOR="openai", RAG_GENERATOR_URL=endpoint.url, RAG_GENERATOR_MODEL="stepwise"
    )
    one, two = published.ids["one"], published.ids["two"]
    body = {"query": "lamp", "stream": True}
    with process.client.stream("POST", "/invocations", json=body) as response:
        lines = response.iter_lines()
        frames = [json.loads(next(lines)) for _ in range(2)]
        assert [frame["type"] for frame in frames] == ["passages", "delta"]
        published.point("two")
        until(process, two)
        assert f'rag_index_info{{bundle="",version="{two}"}} 1.0' in (
            process.client.get("/metrics").text
        )
        assert metric(process, "rag_swaps_total") == 0  # the old one still answers
        endpoint.go_on.set()
        frames += [json.loads(line) for line in lines]
    assert frames[0]["index_version"] == frames[-1]["index_version"] == one
    assert frames[-1]["answer"] == "Hold the power button [1]."
    until_metric(process, "rag_swaps_total", 1)
    assert metric(process, "rag_index_stale") == 0


def test_a_version_that_cannot_be_served_leaves_the_old_one(
    follow: Callable[..., Any], published: Published
) -> None:
    damaged = published.damage("two")
    process = follow()
    published.point("two")
    until_metric(process, 'rag_swap_failures_total{error="BundleCorrupt"}', 2)
    assert version_of(process) == published.ids["one"]
    assert process.ping() == 200
    assert metric(process, "rag_index_stale") == 1
    (first, second, *_) = [line for line in process.lines() if line["level"] == "ERROR"]
    assert str(damaged) in first["message"]
    assert published.ids["one"] in first["message"]
    assert first["retry_in_s"] < second["retry_in_s"]
    published.point("three")
    until(process, published.ids["three"])
    until_metric(process, "rag_swaps_total", 1)
    assert metric(process, "rag_index_stale") == 0


def test_a_rollback_is_followed(follow: Callable[..., Any], published: Published) -> None:
    published.point("two")
    process = follow()
    assert version_of(process) == published.ids["two"]
    command = [sys.executable, "-m", "rag", "rollback", published.root.uri]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert published.ids["one"] in done.stdout
    until(process, published.ids["one"])


def test_a_pinned_version_stays(follow: Callable[..., Any], published: Published) -> None:
    process = follow(RAG_BUNDLE_VERSION=published.ids["two"])
    published.point("three")
    for _ in range(30):
        assert version_of(process) == published.ids["two"]
        time.sleep(0.02)


def test_no_request_fails_while_versions_change_and_nothing_is_left_behind(
    follow: Callable[..., Any], published: Published
) -> None:
    process = follow(RAG_FOLLOW_INTERVAL_S="0.02")
    inside = psutil.Process(process.process.pid)
    seen: set[str] = set()
    stopping = False

    def ask() -> None:
        while not stopping:
            seen.add(version_of(process))

    sizes: list[tuple[int, int]] = []
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
        try:
            for swap in range(8):
                published.point(("two", "three", "one")[swap % 3])
                until_metric(process, "rag_swaps_total", swap + 1)
                sizes.append((inside.memory_info().rss, inside.num_fds()))
        finally:
            stopping = True
        for future in asked:
            future.result()
    assert seen == set(published.ids.values())
    (early, early_fds), (late, late_fds) = sizes[2], sizes[-1]
    assert late < early * 1.1
    assert late_fds <= early_fds + 2

"""Builds in processes that are killed at any moment end, run again, in the same bundle."""

from __future__ import annotations

import filecmp
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rag.index.bundle import Bundle
from rag.index.fetching import locate

ATTEMPTS = 8


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for n in range(300):
        text = "".join(f"## Part {m}\n\nPump {n} has the part {m}.\n\n" for m in range(n % 7))
        (folder / f"{n:03}.md").write_text(f"# Pump {n}\n\nPump {n} is primed.\n\n{text}")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\nnot really")
    return folder


def command(documents: Path, root: Path, encoder: Path, cache: Path, *more: object) -> list[str]:
    options = ["--source", documents, "--output", root, "--encoder", encoder,
               "--encoder-cache", cache, "--json", "--quiet", "--workers", "2", *more]  # fmt: skip
    return [sys.executable, "-m", "indexer", "build", *map(str, options)]


def left_behind(session: int) -> list[int]:
    """The processes of a session that are still there a little later."""
    for _ in range(100):
        found = [int(p.name) for p in Path("/proc").glob("[0-9]*") if _session(p) == session]
        if not found:
            break
        time.sleep(0.1)
    return found


def _session(process: Path) -> int | None:
    try:
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[3])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_build_killed_at_random_moments_ends_in_the_same_bundle(
    number: signal.Signals, documents: Path, tiny_encoder: Path, encoder_cache: Path, tmp_path: Path
) -> None:
    started = time.monotonic()
    whole = command(documents, tmp_path / "whole", tiny_encoder, encoder_cache)
    done = subprocess.run(whole, capture_output=True, text=True, check=True)
    seconds = time.monotonic() - started
    expected = json.loads(done.stdout)

    checkpoint = tmp_path / "checkpoint"
    again = command(
        documents, tmp_path / "root", tiny_encoder, encoder_cache, "--checkpoint-dir", checkpoint
    )
    chance = random.Random(5)
    for _ in range(ATTEMPTS):
        process = subprocess.Popen(again, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   start_new_session=True)  # fmt: skip
        try:
            process.wait(chance.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        told, errors = process.communicate(timeout=60)
        assert not left_behind(process.pid)
        if process.returncode == 0:
            break
        assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), errors
        assert "Traceback" not in errors
    else:
        done = subprocess.run(again, capture_output=True, text=True, check=True)
        told = done.stdout
    found = json.loads(told)
    for key in ("version", "documents", "chunks", "skipped"):
        assert found[key] == expected[key]
    one, two = locate(str(tmp_path / "whole")), locate(str(tmp_path / "root"))
    Bundle.open(two, verify=True)
    for name in os.listdir(one / "sparse"):
        assert filecmp.cmp(one / "sparse" / name, two / "sparse" / name, shallow=False), name
    assert list(checkpoint.iterdir()) == []

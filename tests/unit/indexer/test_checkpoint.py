"""A build that was stopped goes on from where it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from indexer.build import BuildOptions, build, clear_checkpoint
from indexer.pipeline.segments import Segments
from indexer.progress import Silent
from indexer.source import Source
from indexer.stopping import Stop
from rag.errors import BuildStopped
from rag.index.bundle import Bundle


class StopAfter(Silent):
    """Asks a build to stop once a stage is so far."""

    def __init__(self, stop: Stop, stage: str, count: int) -> None:
        self._stop, self._at, self._left = stop, stage, count
        self._now = ""

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[StopAfter]:
        self._now = name
        yield self

    def advance(self, count: int = 1) -> None:
        if self._now == self._at:
            self._left -= count
            if self._left <= 0:
                self._stop.set()


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for n in range(200):
        (folder / f"{n:03}.md").write_text(f"# Pump {n}\n\nPump {n} is primed with water.\n")
    return folder


def test_what_was_parsed_is_not_read_again(
    documents: Path, tmp_path: Path, tiny_options: BuildOptions
) -> None:
    source, checkpoint, stop = Source(str(documents)), tmp_path / "checkpoint", Stop()
    with pytest.raises(BuildStopped):
        build(source, tmp_path / "one", tiny_options, StopAfter(stop, "read and chunk", 64),
              checkpoint=checkpoint, stop=stop)  # fmt: skip
    for path in documents.iterdir():  # other bytes, and nothing to tell it by
        times = path.stat()
        path.write_text(path.read_text().replace("water", "WATER"))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    report = build(source, tmp_path / "two", tiny_options, checkpoint=checkpoint)
    chunks = Bundle.open(report.folder).chunks(np.arange(report.chunks))
    old = sum("water" in chunk.text for chunk in chunks)
    assert report.documents == 200
    assert 64 <= old < 200
    clear_checkpoint(checkpoint)
    assert list(checkpoint.iterdir()) == []


def test_a_change_between_the_runs_is_seen(
    documents: Path, tmp_path: Path, tiny_options: BuildOptions
) -> None:
    source, checkpoint, stop = Source(str(documents)), tmp_path / "checkpoint", Stop()
    with pytest.raises(BuildStopped):
        build(source, tmp_path / "one", tiny_options, StopAfter(stop, "read and chunk", 64),
              checkpoint=checkpoint, stop=stop)  # fmt: skip
    (documents / "000.md").write_text("# Other\n\nThis is not what it was.\n")
    (documents / "001.md").unlink()
    report = build(source, tmp_path / "two", tiny_options, checkpoint=checkpoint)
    assert report.version == build(source, tmp_path / "full", tiny_options).version
    assert report.documents == 199


def test_torn_frames_count_as_never_written(tmp_path: Path) -> None:
    one = Segments(tmp_path, "s")
    places = [one.append(b"x" * size) for size in (10, 20, 30)]
    one.close()
    path = tmp_path / "s-000001.bin"
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        torn = Segments(tmp_path, "s")
        found = [payload for _, payload in torn.restore()]
        assert found == [b"x" * p.size for p in places if p.offset + p.size <= cut]
        torn.append(b"new")
        torn.close()
        again = Segments(tmp_path, "s")
        assert [payload for _, payload in again.restore()] == [*found, b"new"]
        again.close()
        for other in tmp_path.glob("s-*.bin"):
            other.unlink()
    path.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    flipped = Segments(tmp_path, "s")
    assert [payload for _, payload in flipped.restore()] == [b"x" * 10]
    flipped.close()

"""Publishing, rolling back and pruning, killed between any two steps and over a lossy wire: a
reader always sees a whole version, and running the command again finishes it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexer.progress import Silent
from indexer.publish import publish
from rag.index.root import Root

VERBS = ["publish", "rollback", "prune"]
Reader = Callable[[str], str]


def command(verb: str, root: str, bundles: dict[str, Path]) -> list[str]:
    return {
        "publish": ["publish", str(bundles["c"]), "--output", root, "--quiet"],
        "rollback": ["rollback", root, "--to", bundles["a"].name],
        "prune": ["prune", root, "--keep", "1", "--grace", "0s", "--quiet"],
    }[verb]


def check_done(verb: str, root: str, bundles: dict[str, Path], reader: Reader) -> None:
    a, b, c = (bundles[name].name for name in "abc")
    wanted = {"publish": (c, {a, b, c}), "rollback": (a, {a, b}), "prune": (b, {b})}[verb]
    place = Root(root)
    assert reader(root) == wanted[0]
    assert {v.version for v in place.versions() if v.manifest} == wanted[1]
    pointer = place.current()
    assert pointer is not None
    assert not pointer.pruning


def start_root(root: str, bundles: dict[str, Path]) -> None:
    """Versions a and b, b current."""
    publish(bundles["a"], root, Silent())
    publish(bundles["b"], root, Silent())


@pytest.mark.parametrize("verb", VERBS)
def test_killed_between_any_two_changes_of_a_folder(
    verb: str, launcher: Any, tiny_bundles: dict[str, Path], tmp_path: Path, reader: Reader
) -> None:
    start_root(str(tmp_path / "start"), tiny_bundles)
    for step in range(200):
        root = str(tmp_path / f"root-{step}")
        shutil.copytree(tmp_path / "start", root)
        arguments = command(verb, root, tiny_bundles)
        code, said = launcher.run(*arguments, watched=root, die_at=step)
        assert reader(root) in {folder.name for folder in tiny_bundles.values()}
        assert code in (0, -signal.SIGKILL), said
        assert launcher.run(*arguments)[0] == 0 or verb == "rollback"
        check_done(verb, root, tiny_bundles, reader)
        if code == 0:
            break
    assert step > 5 or verb == "rollback"
    assert code == 0


@pytest.mark.parametrize("verb", VERBS)
def test_killed_around_any_call_to_s3(
    verb: str,
    launcher: Any,
    wire: Any,
    tiny_bundles: dict[str, Path],
    s3_prefix: str,
    reader: Reader,
) -> None:
    wire.on_kill = lambda: os.kill(launcher.pid, signal.SIGKILL)
    for step in range(200):
        root = f"{s3_prefix}/{step}"
        start_root(root, tiny_bundles)
        wire.calls = 0
        # After one call had its effect is before the next one has.
        wire.plan = lambda n, *_, at=step: "kill after" if n == at else "pass"
        with wire.between():
            arguments = command(verb, root, tiny_bundles)
            code, said = launcher.run(*arguments)
        assert code in (0, -signal.SIGKILL), said
        reader(root)
        code_again, said = launcher.run(*arguments)
        assert code_again == 0, said
        check_done(verb, root, tiny_bundles, reader)
        if code == 0:
            break
    assert code == 0
    assert step >= 4


FAULTS = [f"{what} {when}" for what in ("reset", "503", "hang") for when in ("before", "after")]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("seed", range(2))
def test_calls_are_lost_at_random(
    verb: str,
    seed: int,
    launcher: Any,
    wire: Any,
    tiny_bundles: dict[str, Path],
    s3_prefix: str,
    reader: Reader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start_root(s3_prefix, tiny_bundles)
    chance = random.Random(seed)
    wire.plan = lambda *_: chance.choice(FAULTS) if chance.random() < 0.25 else "pass"
    monkeypatch.setenv("AWS_TIMEOUT", "1s")
    for _ in range(6):
        with wire.between():
            code, said = launcher.run(*command(verb, s3_prefix, tiny_bundles))
        reader(s3_prefix)
        if code == 0:
            break
        assert said.strip().splitlines()[-1].startswith("rag-indexer: "), said
    assert code == 0
    check_done(verb, s3_prefix, tiny_bundles, reader)


def test_of_two_publishers_one_wins_and_the_other_says_so(
    launcher: Any,
    wire: Any,
    tiny_bundles: dict[str, Path],
    s3_prefix: str,
    reader: Reader,
) -> None:
    start_root(s3_prefix, tiny_bundles)

    def second_publisher(number: int, method: str, path: str) -> str:
        if method == "PUT" and path.endswith("/CURRENT") and not won:
            won.append(path)
            publish(tiny_bundles["d"], s3_prefix, Silent())
        return "pass"

    won: list[str] = []
    wire.plan = second_publisher
    launcher_arguments = command("publish", s3_prefix, tiny_bundles)
    with wire.between():
        launcher.start(*launcher_arguments)
    code, said = launcher.wait()
    assert code == 1
    assert "another publisher" in said
    assert reader(s3_prefix) == tiny_bundles["d"].name
    assert launcher.run(*launcher_arguments)[0] == 0
    assert reader(s3_prefix) == tiny_bundles["c"].name
    assert len(Root(s3_prefix).versions()) == 4


@pytest.mark.parametrize("key", ["manifest.json", "chunks.arrow", "CURRENT"])
def test_a_build_killed_while_it_publishes_is_finished_by_the_next(
    key: str,
    launcher: Any,
    wire: Any,
    tiny_encoder: Path,
    encoder_cache: Path,
    s3_prefix: str,
    tmp_path: Path,
    reader: Reader,
) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents/pump.md").write_text("# Pump\n\nHow to prime the pump.\n")
    arguments = ["build", "--source", str(tmp_path / "documents"), "--output", s3_prefix,
                 "--encoder", str(tiny_encoder), "--encoder-cache", str(encoder_cache),
                 "--index", "flat", "--workers", "1", "--quiet"]  # fmt: skip
    assert launcher.run(*arguments)[0] == 0
    before = reader(s3_prefix)
    (tmp_path / "documents/valve.md").write_text("# Valve\n\nHow to close the valve.\n")

    def kill_at_key(number: int, method: str, path: str) -> str:
        return "kill after" if method == "PUT" and path.endswith(key) else "pass"

    wire.plan = kill_at_key
    wire.on_kill = lambda: os.kill(launcher.pid, signal.SIGKILL)
    with wire.between():
        code, said = launcher.run(*arguments)
    assert code == -signal.SIGKILL, said
    assert (reader(s3_prefix) == before) == (key != "CURRENT")
    code, said = launcher.run(*arguments)
    assert code == 0, said
    assert reader(s3_prefix) != before
    assert sum(info.manifest is not None for info in Root(s3_prefix).versions()) == 2


def test_a_large_file_goes_up_in_parts_and_only_once(
    s3_prefix: str, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rag import multipart
    from rag.errors import ConditionFailed
    from rag.storage import open_store

    monkeypatch.setattr(multipart, "ABOVE_BYTES", 1 << 20)
    large = tmp_path / "large"
    large.write_bytes(os.urandom(1 << 20) * 37)
    store = open_store(s3_prefix)
    store.write("large", large, expected=None)
    store.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()
    with pytest.raises(ConditionFailed):
        store.write("large", large, expected=None)
    bucket = s3_prefix.split("/")[2]
    with urllib.request.urlopen(f"{s3_endpoint}/{bucket}?uploads", timeout=10) as reply:
        assert b"<UploadId>" not in reply.read()
    from indexer.upload import _etag

    (info,) = store.list()
    assert info.etag.strip('"') == _etag(large)


def test_versions_and_pins_are_told_as_json(
    launcher: Any, tiny_bundles: dict[str, Path], tmp_path: Path
) -> None:
    root = str(tmp_path / "root")
    start_root(root, tiny_bundles)
    a, b = tiny_bundles["a"].name, tiny_bundles["b"].name
    assert launcher.run("pin", root, a)[0] == 0
    _, said = launcher.run("versions", root, "--json")
    rows = {row["version"]: row for row in json.loads(said)["versions"]}
    assert rows[b]["current"]
    assert rows[a]["pinned"]
    launcher.run("prune", root, "--keep", "1", "--grace", "0s", "--quiet")
    assert set(os.listdir(tmp_path / "root" / "versions")) == {a, b}

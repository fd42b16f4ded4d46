"""ONNX Runtime's packages for Linux report home by default; here they do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OPEN = """
import sys
from pathlib import Path
{first}
from rag.models.onnx_session import open_session
open_session(Path(sys.argv[1]), 1)
"""


@pytest.mark.parametrize(("first", "silent"), [("", True), ("import onnxruntime", False)])
def test_no_report_is_prepared(
    exported_encoder: Path, tmp_path: Path, first: str, silent: bool
) -> None:
    unset = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME")
    own = {name: value for name, value in os.environ.items() if name not in unset}
    own |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    script = OPEN.format(first=first)
    graph = exported_encoder / "onnx" / "model.onnx"
    subprocess.run([sys.executable, "-c", script, graph], env=own, check=True)
    # The second case shows that the first can fail: the runtime loaded before us leaves its files.
    assert (list(tmp_path.rglob("*onnxruntime*")) == []) is silent

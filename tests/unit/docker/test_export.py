"""What the indexer's image exports with is only a part of the code; it must be enough."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
MODULES = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path = [sys.argv[1], *(p for p in sys.path if p not in ("", sys.argv[2]))]
import indexer.exports, rag.models.export, rag.models.export_reranker
assert indexer.exports.__file__.startswith(sys.argv[1]), indexer.exports.__file__
"""


def test_the_copied_files_import_nothing_else(tmp_path: Path) -> None:
    text = (ROOT / "docker" / "indexer.Dockerfile").read_text()
    lines = re.findall(r"^COPY (.+) (/build/export/\S*)$", text, re.MULTILINE)
    assert len(lines) >= 4
    for names, target in lines:
        place = tmp_path / target.removeprefix("/build/export/")
        for name in names.split():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, place)
    command = [sys.executable, "-P", "-c", MODULES, str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr

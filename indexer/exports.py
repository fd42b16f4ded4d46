"""An encoder's folder for bundles: exported, or copied from an export made before.

Images export while they are built, from this file and rag/models/ alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rag import __version__
from rag.index.manifest import canonical
from rag.models.encoder import EncoderConfig, reference

MEASURED = "measured.json"
LAYOUT = 2
"""Goes up when an export gets other files: those that are kept are then made anew."""


def prepare_encoder(
    source: Path, target: Path, config: EncoderConfig, *, safetensors: bool, cache: Path | None
) -> dict[str, Any]:
    """Writes the encoder in `source` to `target`, and returns what `export_encoder` measured.

    With `cache`, an export of the same encoder by the same program is copied from there, and a
    new one is kept there, unless that folder can only be read. Raises what `export_encoder` raises.
    """
    kept = None if cache is None else export_place(config, cache)
    if kept is None or not kept.is_dir():
        from rag.models.export import export_encoder  # it imports much that copying does not need

        if kept is None or not _writable(kept.parent):
            return export_encoder(source, target, config=config, safetensors=safetensors)
        fresh = Path(tempfile.mkdtemp(prefix=".export-", dir=kept.parent))
        measured = export_encoder(source, fresh / "encoder", config=config)
        (fresh / MEASURED).write_text(json.dumps(measured), encoding="utf-8")
        _settle(fresh, kept)
    left_out = None if safetensors else shutil.ignore_patterns("*.safetensors*")
    shutil.copytree(kept / "encoder", target, ignore=left_out)
    return dict(json.loads((kept / MEASURED).read_text(encoding="utf-8")))


def export_place(config: EncoderConfig, cache: Path) -> Path:
    """Where in `cache` the export of an encoder lies, if it is there."""
    key = canonical([reference(config), __version__, LAYOUT])
    return cache / hashlib.sha256(key).hexdigest()[:32]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _settle(fresh: Path, kept: Path) -> None:
    """Gives the finished export its name, unless another build was faster."""
    try:
        fresh.rename(kept)
    except OSError:
        if not kept.is_dir():
            raise
        shutil.rmtree(fresh)

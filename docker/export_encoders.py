"""Exports encoders into a folder that builds copy them from: export_encoders.py FOLDER NAME..."""

import sys
import tempfile
from pathlib import Path

from indexer.exports import prepare_encoder
from rag.models.encoder import EncoderConfig, resolve

folder, names = Path(sys.argv[1]), sys.argv[2:]
for name in names:
    source = resolve(name)
    config = EncoderConfig.read(source)
    with tempfile.TemporaryDirectory() as work:
        target = Path(work, "encoder")
        measured = prepare_encoder(source, target, config, safetensors=True, cache=folder)
    print(f"{name}: {measured}", flush=True)
folder.chmod(0o755)
for path in folder.rglob("*"):
    path.chmod(0o755 if path.is_dir() else 0o644)

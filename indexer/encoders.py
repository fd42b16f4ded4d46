"""The bundle's encoder folder: exported, or copied from an export made before."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from indexer.options import BuildOptions
from indexer.pipeline.embedding import Encoder
from rag import __version__
from rag.index.manifest import canonical
from rag.models.embedder import Embedder
from rag.models.encoder import EncoderConfig, reference
from rag.models.load import load_embedder
from rag.models.threads import usable_cpus

MEASURED = "measured.json"
CPU_BATCH_TOKENS = 2048
"""Padded tokens of a batch on a CPU: more do not fit its caches."""
GPU_BATCH_TOKENS = 32768


def prepare_encoder(
    source: Path, target: Path, config: EncoderConfig, *, safetensors: bool, cache: Path | None
) -> dict[str, Any]:
    """Writes the encoder in `source` to `target`, and returns what `export_encoder` measured.

    With `cache`, an export of the same encoder by the same program is copied from there, and a
    new one is kept there, unless that folder can only be read. Raises what `export_encoder` raises.
    """
    from rag.models.export import export_encoder  # it imports much that an update never needs

    if cache is None:
        return export_encoder(source, target, config=config, safetensors=safetensors)
    key = canonical([reference(config), __version__])
    kept = cache / hashlib.sha256(key).hexdigest()[:32]
    if not kept.is_dir():
        if not _writable(cache):
            return export_encoder(source, target, config=config, safetensors=safetensors)
        fresh = Path(tempfile.mkdtemp(prefix=".export-", dir=cache))
        measured = export_encoder(source, fresh / "encoder", config=config)
        (fresh / MEASURED).write_text(json.dumps(measured), encoding="utf-8")
        _settle(fresh, kept)
    left_out = None if safetensors else shutil.ignore_patterns("*.safetensors*")
    shutil.copytree(kept / "encoder", target, ignore=left_out)
    return dict(json.loads((kept / MEASURED).read_text(encoding="utf-8")))


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


class PassageEncoder:
    """The bundle's encoder, prepared and loaded at its first use, or by `prepare`; `measured` is
    what the export measured. `before` is the folder of the same encoder in the version before,
    with what was measured then, or None.
    """

    def __init__(
        self,
        source: Path,
        target: Path,
        config: EncoderConfig,
        options: BuildOptions,
        before: tuple[Path, dict[str, Any]] | None = None,
    ) -> None:
        self._source, self._target, self._config = source, target, config
        self._options = options
        self._before = before
        self.measured: dict[str, Any] = {}

    def prepare(self) -> None:
        """Writes the encoder's folder, unless it is there."""
        if self._target.is_dir():
            return
        if self._before is not None:
            shutil.copytree(self._before[0], self._target)
            self.measured = dict(self._before[1])
            return
        self.measured = prepare_encoder(
            self._source,
            self._target,
            self._config,
            safetensors=self._options.safetensors,
            cache=self._options.encoder_cache,
        )

    def load(self) -> Embedder:
        """The embedder, of the prepared folder."""
        self.prepare()
        options = self._options
        # ONNX Runtime works fastest with several callers of a thread each: none waits for another.
        threads = 1 if options.runs == "onnx" else options.threads
        return load_embedder(
            self._target, backend=options.runs, device=options.device,
            precision=options.precision, threads=threads,
        )  # fmt: skip

    def stage(self) -> Encoder:
        """How the pipeline is to use it."""
        options = self._options
        if options.runs == "onnx":
            return Encoder(self.load, CPU_BATCH_TOKENS, options.threads or usable_cpus())
        if options.device == "cpu":
            return Encoder(self.load, CPU_BATCH_TOKENS, 1)
        return Encoder(self.load, GPU_BATCH_TOKENS, 2)  # one tokenises while the other computes

"""The encoder of a build: its folder in the bundle, and how the pipeline runs it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from indexer.exports import prepare_encoder
from indexer.options import BuildOptions
from indexer.pipeline.embedding import Encoder
from rag.models.embedder import Embedder
from rag.models.encoder import EncoderConfig
from rag.models.load import load_embedder
from rag.models.threads import usable_cpus

CPU_BATCH_TOKENS = 2048
"""Padded tokens of a batch on a CPU: more do not fit its caches."""
GPU_BATCH_TOKENS = 32768


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

"""The encoder of a build: its folder in the bundle, and how the pipeline runs it."""

from __future__ import annotations

import shutil
from concurrent.futures import wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pebble import ProcessPool

from indexer.exports import export_place, prepare_encoder
from indexer.options import BuildOptions
from indexer.pipeline.embedding import Encoder
from indexer.stopping import Stop
from rag.errors import BuildStopped
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
        stop: Stop,
        before: tuple[Path, dict[str, Any]] | None = None,
    ) -> None:
        self._source, self._target, self._config = source, target, config
        self._options, self._stop = options, stop
        self._before = before
        self.measured: dict[str, Any] = {}

    def prepare(self) -> None:
        """Writes the encoder's folder, unless it is there. Raises as `prepare_encoder` does, and
        BuildStopped.
        """
        if self._target.is_dir():
            return
        if self._before is not None:
            shutil.copytree(self._before[0], self._target)
            self.measured = dict(self._before[1])
            return
        cache = self._options.encoder_cache
        arguments: dict[str, Any] = {"safetensors": self._options.safetensors, "cache": cache}
        if cache is not None and export_place(self._config, cache).is_dir():
            self.measured = prepare_encoder(self._source, self._target, self._config, **arguments)
            return
        # Exporting takes PyTorch, whose gigabyte goes with the process; and it can be killed.
        with ProcessPool(max_workers=1, context=get_context("spawn")) as pool:
            future: Any = pool.schedule(
                prepare_encoder, args=(self._source, self._target, self._config), kwargs=arguments
            )
            try:
                while not future.done():
                    self._stop.check()
                    wait([future], timeout=0.2)
                self.measured = future.result()
            except BuildStopped:
                pool.stop()  # type: ignore[no-untyped-call]
                raise

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

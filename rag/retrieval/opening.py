"""A bundle made ready to search: opened, its encoder loaded and proven, both legs warm."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag.accelerator import check_versions, read_installed
from rag.compiled.kernel import compiler
from rag.devices import AUTO, CPU, Driver, number_of, read_driver, split_devices
from rag.errors import BundleMixed, ConfigurationError
from rag.index.bundle import Bundle, open_bundle
from rag.index.dense.gpu_plan import Search
from rag.index.seal import Progress
from rag.models.embedder import Embedder, EncodedQuery
from rag.models.golden import check_golden, required_cosine
from rag.models.load import Backend, load_embedder
from rag.retrieval.retriever import Retriever
from rag.retrieval.searcher import Searcher
from rag.types import Query

logger = logging.getLogger(__name__)

ENCODER_ROOM_BYTES = 2 << 30
"""Of a GPU, beside the encoder's weights: CUDA's own, and batches large enough to keep it busy."""


@dataclass(frozen=True, slots=True)
class Opened:
    """One generation that can answer: its bundle, its query encoder, and the search over both."""

    bundle: Bundle
    embedder: Embedder
    retriever: Retriever


def open_retriever(
    uri: str,
    *,
    cache_dir: Path | None = None,
    verify: bool = True,
    backend: Backend = "onnx",
    device: str = "cpu",
    precision: str = "float32",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Opened:
    """Opens the bundle at `uri` (see `rag.index.bundle.open_bundle`) and makes it ready.

    The encoder must reproduce the bundle's golden vectors, whatever `verify` says: BundleMismatch
    if it does not. A first search then touches what later ones need. Raises
    BundleError, StorageError, ConfigurationError.
    """
    bundle = open_bundle(uri, cache_dir=cache_dir, verify=verify, progress=progress)
    embedder = load_proven(
        bundle, backend=backend, device=device, precision=precision, threads=threads
    )
    retriever = Retriever(bundle, embedder)
    warm(retriever.searcher, embedder.config.dimension)
    return Opened(bundle, embedder, retriever)


def place_dense(bundle: Bundle, device: str, search: Search = "auto") -> None:
    """Moves the bundle's dense leg to `device` ('auto', 'cpu', 'cuda', 'cuda:N', 'cuda:0,1') where
    it is not the CPU, and leaves room for the bundle's encoder there.

    To be called before the encoder is loaded, which fits its batches into what is left. Versions
    of driver, CUDA, PyTorch and FAISS are checked first. Raises ConfigurationError for a GPU that
    was asked for and cannot be had; 'auto' says so in the log and stays on the CPU.
    """
    names = split_devices(device)
    if names == [CPU]:
        return
    driver = read_driver()
    if names == [AUTO] and not driver.devices:
        return
    try:
        _to_gpu(bundle, names, driver, search)
    except ConfigurationError as error:
        if names != [AUTO]:
            raise
        logger.warning("the dense leg runs on the CPU: %s", error)


def _to_gpu(bundle: Bundle, names: list[str], driver: Driver, search: Search) -> None:
    if driver.devices:
        asked = None if names == [AUTO] else [number_of(name) or 0 for name in names]
        logger.info(check_versions(driver, read_installed(), asked))
    from rag.index.dense import gpu

    chosen = [gpu.dense_device(name, driver) for name in names]
    if chosen == [CPU]:
        raise ConfigurationError(gpu.faiss_lacks() or "it was asked to")
    free = gpu.free_memory([number_of(name) or 0 for name in chosen])
    weights = sum(path.stat().st_size for path in bundle.encoder_folder.glob("*.safetensors"))
    room = ENCODER_ROOM_BYTES + weights
    bundle.dense, plan = gpu.on_gpu(
        bundle.dense, chosen, [max(0, size - room) for size in free], search=search
    )
    logger.info("the dense leg runs on %s: %s", ", ".join(chosen), plan)


def load_proven(
    bundle: Bundle,
    *,
    backend: Backend = "onnx",
    device: str = "cpu",
    precision: str = "float32",
    threads: int | None = None,
    **on_gpu: Any,
) -> Embedder:
    """The bundle's query encoder (see `rag.models.load.load_embedder`), which reproduces its golden
    vectors: BundleMismatch if it does not, BundleMixed if it is not the one that was sealed.
    """
    embedder = load_embedder(
        bundle.encoder_folder, backend=backend, device=device, precision=precision,
        threads=threads, **on_gpu,
    )  # fmt: skip
    if embedder.config.digest != bundle.manifest.encoder["digest"]:
        raise BundleMixed(
            f"{bundle.encoder_folder} holds another encoder than the one that the manifest names;"
            " build the bundle again"
        )
    least = required_cosine(precision, bundle.manifest.measured.get("encoder", {}))
    check_golden(embedder, bundle.encoder_folder, min_cosine=least)
    return embedder


def warm(searcher: Searcher, dimension: int) -> None:
    """A first search, which touches what later ones need."""
    logger.debug("loops: %s", compiler())
    anything = np.full(dimension, dimension**-0.5, dtype=np.float32)
    searcher.find([Query("warm up", top_k=1)], [EncodedQuery(anything, 1.0)])

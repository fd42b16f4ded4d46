"""A bundle made ready to search: opened, its encoder loaded and proven, both legs warm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rag.errors import BundleMixed
from rag.index.bundle import Bundle, open_bundle
from rag.index.seal import Progress
from rag.models.embedder import Embedder, EncodedQuery
from rag.models.golden import check_golden, required_cosine
from rag.models.load import Backend, load_embedder
from rag.retrieval.retriever import Retriever
from rag.retrieval.searcher import Searcher
from rag.types import Query


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
    if it does not. A first search then compiles and touches what later ones need. Raises
    BundleError, StorageError, ConfigurationError.
    """
    bundle = open_bundle(uri, cache_dir=cache_dir, verify=verify, progress=progress)
    embedder = load_proven(
        bundle, backend=backend, device=device, precision=precision, threads=threads
    )
    retriever = Retriever(bundle, embedder)
    warm(retriever.searcher, embedder.config.dimension)
    return Opened(bundle, embedder, retriever)


def load_proven(
    bundle: Bundle,
    *,
    backend: Backend = "onnx",
    device: str = "cpu",
    precision: str = "float32",
    threads: int | None = None,
) -> Embedder:
    """The bundle's query encoder (see `rag.models.load.load_embedder`), which reproduces its golden
    vectors: BundleMismatch if it does not, BundleMixed if it is not the one that was sealed.
    """
    embedder = load_embedder(
        bundle.encoder_folder, backend=backend, device=device, precision=precision, threads=threads
    )
    if embedder.config.digest != bundle.manifest.encoder["digest"]:
        raise BundleMixed(
            f"{bundle.encoder_folder} holds another encoder than the one that the manifest names;"
            " build the bundle again"
        )
    least = required_cosine(precision, bundle.manifest.measured.get("encoder", {}))
    check_golden(embedder, bundle.encoder_folder, min_cosine=least)
    return embedder


def warm(searcher: Searcher, dimension: int) -> None:
    """A first search, which compiles and touches what later ones need."""
    anything = np.full(dimension, dimension**-0.5, dtype=np.float32)
    searcher.find([Query("warm up", top_k=1)], [EncodedQuery(anything, 1.0)])

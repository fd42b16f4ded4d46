"""What decides a bundle beside its documents, and how the work is done."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from indexer import parsing
from indexer.chunking import Chunker, ChunkerOptions
from indexer.pipeline.workers import Limits
from indexer.source import Source
from rag import __version__
from rag.index import analyzer as analyzers
from rag.index.analyzer import Analyzer
from rag.index.manifest import FORMAT, canonical
from rag.models.encoder import EncoderConfig, reference
from rag.models.load import Backend
from rag.retrieval.fusion import DEFAULT as DEFAULT_FUSION

_PARSERS = (
    "beautifulsoup4", "charset-normalizer", "lxml", "markdown-it-py", "openpyxl", "pypdfium2",
    "python-docx", "python-pptx", "PyYAML", "tokenizers",
)  # fmt: skip
_ANALYZERS = ("PyStemmer", "kiwipiepy", "kiwipiepy_model")


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What decides a bundle beside its documents, and how the work is done.

    `sparse` and `dense` are passed to `build_sparse` and `build_chosen`; `tune_queries` are texts
    to tune the dense index for (without: made from passages). They do not enter the version id,
    nor does the rest: `backend` ('auto': onnx on a CPU, torch elsewhere), `device`, `precision`
    and `threads` say what embeds the passages, `encoder_cache` where exports of encoders are kept
    between builds, `vector_cache` (a folder or an s3:// prefix) where vectors are, `limits` what
    one document may take, `read_ahead` how many bytes are read before they are parsed.
    """

    encoder: str = "default"
    max_tokens: int | None = None
    truncate_dim: int | None = None
    prompts: dict[str, str] | None = None
    analyzer: str = "auto"
    chunker: ChunkerOptions = field(default_factory=ChunkerOptions)
    dense: dict[str, Any] = field(default_factory=dict)
    tune_queries: Sequence[str] = ()
    sparse: dict[str, Any] = field(default_factory=dict)
    fusion: dict[str, Any] = field(default_factory=lambda: dict(DEFAULT_FUSION))
    safetensors: bool = True
    strict: bool = False
    backend: Backend | str = "auto"
    device: str = "cpu"
    precision: str = "float32"
    threads: int | None = None
    encoder_cache: Path | None = None
    vector_cache: str | None = None
    limits: Limits = field(default_factory=Limits)
    read_ahead: int = 256 * 2**20

    @property
    def runs(self) -> Backend:
        """The backend, 'auto' decided: on a CPU ONNX Runtime embeds faster than PyTorch, and the
        two agree (tests/bench/build.py measures both).
        """
        if self.backend == "auto":
            return "onnx" if self.device == "cpu" else "torch"
        return self.backend  # type: ignore[return-value]

    @property
    def runs_as(self) -> str:
        """What computes the vectors: others that are computed alike may stand for them."""
        return f"{self.runs} {self.precision}"


def parsing_digest(
    source: Source, config: EncoderConfig, chunker: Chunker, analyzer: Analyzer
) -> str:
    """64 hex digits over all that decides what becomes of a document before it is embedded."""
    columns = source.columns
    about = {
        "parsing": parsing.VERSION,
        "base_uri": source.base_uri,
        "columns": None if columns is None else [columns.text, columns.id, columns.title,
                                                 list(columns.metadata)],
        "encoder": reference(config),
        "chunker": chunker.reference(),
        "analyzer": [analyzer.name, analyzer.options, analyzers.VERSION],
        "packages": {name: _version(name) for name in (*_PARSERS, *_ANALYZERS)},
        "unicode": unicodedata.unidata_version,
    }  # fmt: skip
    return hashlib.sha256(canonical(about)).hexdigest()


def encoder_digest(config: EncoderConfig, options: BuildOptions) -> str:
    """64 hex digits over all that decides a text's vector."""
    return hashlib.sha256(canonical([reference(config), options.runs_as])).hexdigest()


def bundle_digest(parsing: str, config: EncoderConfig, options: BuildOptions) -> str:
    """64 hex digits over all that decides a bundle beside its documents."""
    about = [
        parsing, encoder_digest(config, options), options.dense, list(options.tune_queries),
        options.sparse, options.fusion, options.safetensors, FORMAT, __version__,
    ]  # fmt: skip
    return hashlib.sha256(canonical(about)).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

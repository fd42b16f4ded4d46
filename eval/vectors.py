"""The encoder of an evaluation, loaded when it is first needed, and its vectors on disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from rag.errors import EvaluationError
from rag.index.manifest import canonical
from rag.models.embedder import Embedder
from rag.models.encoder import EncoderConfig, reference, resolve
from rag.models.load import Backend, load_embedder
from rag.models.tokenizer import Tokenizer
from rag.types import Float32, Int64

SLICE = 512
Advance = Callable[[str, int, int], None]
"""(stage, items just done, items in all), called as the work goes on."""
Role = Literal["query", "passage"]


class LazyEmbedder:
    """An `Embedder` that is loaded when it first embeds: with all vectors on disk, never.

    `encoder` is as in a build ('default', a folder, a hub id). The 'onnx' backend exports the
    encoder first, below `exports`, and finds it there the next time.
    """

    def __init__(
        self,
        encoder: str,
        *,
        exports: Path,
        backend: Backend = "torch",
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        self._source = resolve(encoder)
        self._config = EncoderConfig.read(self._source)
        self._backend: Backend = backend
        self._device = device
        self._precision = precision
        self._exports = exports
        self._loaded: Embedder | None = None
        self._tokenizer: Tokenizer | None = None

    @property
    def config(self) -> EncoderConfig:
        return self._config

    @property
    def runs_as(self) -> str:
        """What computes the vectors, such as 'torch float32'."""
        return f"{self._backend} {self._precision}"

    def embed_queries(self, texts: Sequence[str]) -> Float32:
        return self._load().embed_queries(texts)

    def embed_passages(self, texts: Sequence[str]) -> Float32:
        return self._load().embed_passages(texts)

    def readable(self, texts: Sequence[str]) -> Float32:
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.load(self._source)
        return self._tokenizer.readable(texts)

    def query_tokens(self, texts: Sequence[str]) -> Int64:
        return self._load().query_tokens(texts)

    def _load(self) -> Embedder:
        if self._loaded is None:
            folder = self._source if self._backend == "torch" else self._exported()
            self._loaded = load_embedder(
                folder, backend=self._backend, device=self._device, precision=self._precision
            )
        return self._loaded

    def _exported(self) -> Path:
        if (self._source / "onnx" / "model.onnx").is_file():
            return self._source
        from rag.models.export import export_encoder

        target = self._exports / self._config.digest[:32]
        if not target.is_dir():
            self._exports.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=self._exports))
            export_encoder(self._source, partial, config=self._config, safetensors=False)
            partial.rename(target)
        return target


class VectorCache:
    """Vectors on disk, by encoder and texts: a collection is embedded once.

    Each file, `<encoder>-<texts>.npy`, is float32 (n, d) for one list of texts; the names are
    digests of all that decides the vectors. `runs_as` tells what computes them apart.
    """

    def __init__(self, folder: Path | None, runs_as: str) -> None:
        self._folder = folder
        self._runs_as = runs_as

    def embed(
        self, embedder: Embedder, role: Role, texts: Sequence[str], advance: Advance
    ) -> Float32:
        """float32 (len(texts), d), in the order of `texts`; from disk if they are there.

        Texts are embedded longest first: batches of like length have little padding.
        """
        path = None if self._folder is None else self._path(self._folder, embedder, role, texts)
        if path is not None and path.is_file():
            return _load(path, (len(texts), embedder.config.dimension))
        vectors = np.empty((len(texts), embedder.config.dimension), dtype=np.float32)
        embed = embedder.embed_queries if role == "query" else embedder.embed_passages
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        for start in range(0, len(order), SLICE):
            part = order[start : start + SLICE]
            vectors[part] = embed([texts[i] for i in part])
            advance(
                "embed passages" if role == "passage" else "embed queries", len(part), len(order)
            )
        if path is not None:
            _save(path, vectors)
        return vectors

    def _path(self, folder: Path, embedder: Embedder, role: Role, texts: Sequence[str]) -> Path:
        identity = canonical([reference(embedder.config), self._runs_as, role])
        encoder = hashlib.sha256(identity).hexdigest()[:24]
        digest = hashlib.sha256()
        for text in texts:
            data = text.encode("utf-8")
            digest.update(len(data).to_bytes(8, "little") + data)
        return folder / f"{encoder}-{digest.hexdigest()[:32]}.npy"


def _load(path: Path, shape: tuple[int, int]) -> Float32:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise EvaluationError(f"{path} cannot be read ({error}); delete it") from None
    if vectors.shape != shape or vectors.dtype != np.float32:
        raise EvaluationError(
            f"{path} holds {vectors.dtype} {vectors.shape}, not float32 {shape}; delete it"
        )
    return np.asarray(vectors, dtype=np.float32)


def _save(path: Path, vectors: Float32) -> None:
    """Writes the file under its name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        np.save(file, vectors, allow_pickle=False)
    os.replace(file.name, path)

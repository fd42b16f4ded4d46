"""The one place that chooses what runs a reranker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from rag.errors import ConfigurationError
from rag.models.rerank_wire import Dialect
from rag.models.reranker import Reranker

Backend = Literal["onnx", "torch", "remote"]


@dataclass(frozen=True, slots=True)
class RerankerSpec:
    """Which reranker, and how it runs.

    'onnx' and 'torch' take `path`, a cross-encoder's folder; 'onnx' runs on the CPU with `threads`
    threads (None: all that may be used), 'torch' on `device` in `dtype`. 'remote' takes `url`,
    `dialect`, and `model` and `api_key` where the endpoint wants them.
    """

    backend: Backend
    path: Path | None = None
    device: str = "cpu"
    dtype: str = "float32"
    threads: int | None = None
    url: str | None = None
    dialect: str = "tei"
    model: str | None = None
    api_key: str | None = None


def load_reranker(spec: RerankerSpec) -> Reranker:
    """The reranker of `spec`; ConfigurationError for what is missing in it or not there.

    A remote endpoint is not contacted.
    """
    if spec.backend not in get_args(Backend):
        raise ConfigurationError(
            f"the reranker {spec.backend!r} is not one of {', '.join(get_args(Backend))}"
        )
    if spec.backend == "remote":
        from rag.models.remote_reranker import RemoteReranker

        if not spec.url:
            raise ConfigurationError("a remote reranker needs the URL of its endpoint")
        dialect = cast(Dialect, spec.dialect)
        return RemoteReranker(spec.url, dialect=dialect, model=spec.model, api_key=spec.api_key)
    if spec.path is None:
        raise ConfigurationError(f"the {spec.backend} reranker needs the path of its folder")
    if spec.backend == "torch":
        from rag.models.torch_loading import Dtype
        from rag.models.torch_reranker import TorchReranker

        return TorchReranker(spec.path, device=spec.device, dtype=cast(Dtype, spec.dtype))
    if (spec.device, spec.dtype) != ("cpu", "float32"):
        raise ConfigurationError(
            f"the onnx reranker runs in float32 on the cpu, not in {spec.dtype} on {spec.device};"
            " choose torch"
        )
    from rag.models.onnx_reranker import OnnxReranker

    return OnnxReranker(spec.path, threads=spec.threads)

"""The one place that chooses what runs an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast, get_args

from rag.errors import ConfigurationError
from rag.models.embedder import Embedder

Backend = Literal["onnx", "torch"]
PRECISIONS = {"onnx": ("float32", "int8"), "torch": ("float32", "float16", "bfloat16")}


def load_embedder(
    folder: Path,
    *,
    backend: Backend = "onnx",
    device: str = "cpu",
    precision: str = "float32",
    threads: int | None = None,
) -> Embedder:
    """The embedder for an exported folder.

    'onnx' runs on the CPU in float32 or int8, with `threads` threads (None: all that may be used);
    'torch' runs on 'cpu', 'cuda' or 'cuda:N' in float32, float16 or bfloat16. Raises
    ConfigurationError for anything else, and for a package or a device that is not there.
    """
    if backend not in get_args(Backend):
        raise ConfigurationError(f"the encoder backend {backend!r} is not 'onnx' or 'torch'")
    if precision not in PRECISIONS[backend]:
        raise ConfigurationError(
            f"the {backend} backend has no precision {precision!r};"
            f" choose {' or '.join(PRECISIONS[backend])}"
        )
    if backend == "torch":
        from rag.models.torch_embedder import TorchEmbedder
        from rag.models.torch_loading import Dtype

        if threads is not None and device == "cpu":
            import torch

            torch.set_num_threads(threads)
        return TorchEmbedder(folder, device=device, dtype=cast(Dtype, precision))
    if device != "cpu":
        raise ConfigurationError(
            f"the onnx backend runs on the cpu, not on {device}; choose the torch backend"
        )
    from rag.models.onnx_embedder import OnnxEmbedder, Precision

    return OnnxEmbedder(folder, precision=cast(Precision, precision), threads=threads)

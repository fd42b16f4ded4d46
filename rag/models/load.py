"""The one place that chooses what runs an encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, cast, get_args

from rag.devices import CPU, split_devices
from rag.errors import ConfigurationError
from rag.models.devices import encoder_device
from rag.models.embedder import Embedder

Backend = Literal["onnx", "torch"]
SPEEDUPS = {"onnx": ("none", "tensorrt"), "torch": ("none", "compile", "graphs")}
PRECISIONS = {"onnx": ("float32", "int8"), "torch": ("float32", "float16", "bfloat16")}


def load_embedder(
    folder: Path,
    *,
    backend: Backend = "onnx",
    device: str = "cpu",
    precision: str = "float32",
    threads: int | None = None,
    speedup: str = "none",
    on_halved: Callable[[], None] | None = None,
) -> Embedder:
    """The embedder for an exported folder.

    `device` is 'auto', 'cpu', 'cuda' or 'cuda:N' (see rag/devices.py); 'cuda:0,1' is a copy on
    each. 'onnx' runs in float32 or int8, on the CPU with `threads` threads (None: all that may be
    used); 'torch' in float32, float16 or bfloat16. `speedup` is 'none', for torch also 'compile'
    or 'graphs', for onnx on a GPU also 'tensorrt'. On a GPU, torch's batches are as large as the
    memory allows that is free now; one that runs out of it all the same is halved, and `on_halved`
    is called.
    Raises ConfigurationError for anything else, and for a package or a device that is not there.
    """
    if backend not in get_args(Backend):
        raise ConfigurationError(f"the encoder backend {backend!r} is not 'onnx' or 'torch'")
    if precision not in PRECISIONS[backend]:
        raise ConfigurationError(
            f"the {backend} backend has no precision {precision!r};"
            f" choose {' or '.join(PRECISIONS[backend])}"
        )
    if speedup not in SPEEDUPS[backend]:
        raise ConfigurationError(
            f"the {backend} backend has no speed-up {speedup!r}; choose"
            f" {' or '.join(SPEEDUPS[backend])}"
        )
    devices = split_devices(device)
    if len(devices) > 1:
        from rag.models.parallel_embedder import ParallelEmbedder

        one = partial(
            load_embedder, folder, backend=backend, precision=precision, threads=threads,
            speedup=speedup, on_halved=on_halved,
        )  # fmt: skip
        return ParallelEmbedder([one(device=name) for name in devices])
    device = encoder_device(backend, device, precision=precision)
    if backend == "onnx":
        from rag.models.onnx_embedder import OnnxEmbedder, Precision

        return OnnxEmbedder(
            folder, precision=cast(Precision, precision), threads=threads, device=device,
            tensorrt=speedup == "tensorrt", on_halved=on_halved,
        )  # fmt: skip
    from rag.models.torch_embedder import TorchEmbedder
    from rag.models.torch_forward import Speedup
    from rag.models.torch_loading import Dtype

    if threads is not None and device == CPU:
        import torch

        torch.set_num_threads(threads)
    embedder = TorchEmbedder(
        folder, device=device, dtype=cast(Dtype, precision), speedup=cast(Speedup, speedup),
        on_halved=on_halved,
    )  # fmt: skip
    if device == CPU:
        return embedder
    from rag.models.cuda_memory import fit_to_device
    from rag.models.parallel_embedder import AHEAD, ParallelEmbedder

    fit_to_device(embedder, at_once=AHEAD)
    embedder.warm()
    # One slice is tokenised while another computes.
    return ParallelEmbedder([embedder])

"""ONNX Runtime's sessions, opened the same way for every model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rag.devices import number_of
from rag.errors import ConfigurationError

PROVIDERS = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}

SLOWER_ON_CPU = ["SkipLayerNormFusion"]
"""Of the runtime's rewritings: its fused kernel takes a tenth of an encoder's time, and the sum and
the norm one after the other take half of that.
"""


def open_session(path: Path, threads: int, *, device: str = "cpu", tensorrt: bool = False) -> Any:
    """The graph in `path` on 'cpu', 'cuda' or 'cuda:N', there through TensorRT where that is asked
    for; ConfigurationError where it, the runtime or its provider is missing.
    """
    try:
        import onnxruntime as ort
    except ImportError:
        raise ConfigurationError(
            "the onnx backend needs onnxruntime; pip install 'rag-containers[cpu]'"
        ) from None
    if not path.is_file():
        raise ConfigurationError(f"there is no {path}; export the model again")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A thread that spins while it waits for work takes the processor from whoever has some.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = _providers(ort.get_available_providers(), device, tensorrt)
    disabled = SLOWER_ON_CPU if device == "cpu" else []
    try:
        session = ort.InferenceSession(
            str(path), options, providers=providers, disabled_optimizers=disabled
        )
    except Exception as error:  # noqa: BLE001 - the runtime raises bare RuntimeError subclasses
        raise ConfigurationError(f"{path} cannot be loaded: {first_line(error)}") from None
    # The runtime falls back to the CPU without a word where a provider cannot start.
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if session.get_providers()[0] != wanted:
        raise ConfigurationError(
            f"onnxruntime could not start its {wanted} for {path}; its log says why (often a CUDA"
            " or cuDNN library that is missing or of another version)"
        )
    return session


def _providers(available: list[str], device: str, tensorrt: bool) -> list[Any]:
    """What to ask for, best first, with options."""
    if device == "cpu":
        return ["CPUExecutionProvider"]
    number = number_of(device) or 0
    wanted = ["tensorrt", "cuda"] if tensorrt else ["cuda"]
    for name in wanted:
        if PROVIDERS[name] not in available:
            raise ConfigurationError(
                f"this onnxruntime has no {PROVIDERS[name]}; install onnxruntime-gpu in its place,"
                " or choose the torch backend"
            )
    cuda = (PROVIDERS["cuda"], {"device_id": number, "arena_extend_strategy": "kSameAsRequested"})
    if not tensorrt:
        return [cuda, "CPUExecutionProvider"]
    cache = Path(tempfile.gettempdir(), "rag-tensorrt")
    cache.mkdir(exist_ok=True)
    engine = {
        "device_id": number,
        "trt_fp16_enable": True,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(cache),
    }
    return [(PROVIDERS["tensorrt"], engine), cuda, "CPUExecutionProvider"]


def first_line(error: Exception) -> str:
    """The first line of what `error` says, or its name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

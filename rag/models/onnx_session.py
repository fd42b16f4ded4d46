"""ONNX Runtime's sessions, opened the same way for every model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rag.errors import ConfigurationError


def open_session(path: Path, threads: int) -> Any:
    """The graph in `path` on the CPU; ConfigurationError where it or the runtime is missing."""
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
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - the runtime raises bare RuntimeError subclasses
        raise ConfigurationError(f"{path} cannot be loaded: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    """The first line of what `error` says, or its name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

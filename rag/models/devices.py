"""Where an encoder runs, by what its backend can do here."""

from __future__ import annotations

from rag.devices import AUTO, CPU, Driver, check_name, choose_device, read_driver
from rag.errors import ConfigurationError


def encoder_device(
    backend: str, wanted: str, driver: Driver | None = None, *, precision: str = "float32"
) -> str:
    """'cpu', 'cuda' or 'cuda:N' for the encoder of `backend` ('onnx' or 'torch').

    Raises ConfigurationError for a GPU that was asked for and is not there, or that the backend's
    package, or int8, cannot use. `driver` is this machine's unless it is given.
    """
    check_name(wanted)
    if wanted == CPU:
        return CPU
    if precision == "int8":  # no GPU has kernels for a graph that is quantized as it runs
        if wanted == AUTO:
            return CPU
        raise ConfigurationError(
            f"the encoder is to run on {wanted} in int8, which is for CPUs; choose float32, or the"
            " torch backend and float16"
        )
    driver = read_driver() if driver is None else driver
    if wanted == AUTO and not driver.devices:
        return CPU
    lacking = _onnx_lacks() if backend == "onnx" else _torch_lacks()
    return choose_device(wanted, driver, lacking=lacking, what="the encoder")


def _onnx_lacks() -> str | None:
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime is not installed; pip install 'rag-containers[gpu]'"
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return None
    return (
        "this onnxruntime has no CUDA provider; install onnxruntime-gpu in its place, or choose"
        " the torch backend"
    )


def _torch_lacks() -> str | None:
    try:
        import torch
    except ImportError:
        return "torch is not installed; pip install 'rag-containers[gpu]'"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA; install one with it"
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no device it can use"
    return None

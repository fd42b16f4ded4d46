"""Where an encoder runs, by what its backend can do here."""

from __future__ import annotations

from rag.devices import AUTO, CPU, Driver, check_name, choose_device, read_driver


def encoder_device(backend: str, wanted: str, driver: Driver | None = None) -> str:
    """'cpu', 'cuda' or 'cuda:N' for the encoder of `backend` ('onnx' or 'torch').

    Raises ConfigurationError for a GPU that was asked for and is not there, or that the backend's
    package cannot use. `driver` is this machine's unless it is given.
    """
    check_name(wanted)
    if wanted == CPU:
        return CPU
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

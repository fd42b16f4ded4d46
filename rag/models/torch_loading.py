"""Models of sentence-transformers, loaded the one safe way: safetensors, no code of their own."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from rag.errors import ConfigurationError
from rag.models.onnx_session import first_line

Dtype = Literal["float32", "float16", "bfloat16"]
Kind = Literal["SentenceTransformer", "CrossEncoder"]


def load_model(kind: Kind, folder: Path, device: str, dtype: Dtype) -> Any:
    """The model in `folder` as sentence-transformers' class `kind`.

    `device` is 'cpu', 'cuda' or 'cuda:N'. Raises ConfigurationError, in one line, for a package
    or a device that is not there and for a model that cannot be loaded.
    """
    try:
        import sentence_transformers
        import torch
        from transformers.utils import logging
    except ImportError as error:
        raise ConfigurationError(
            f"the torch backend needs {error.name}; pip install 'rag-containers[indexer]'"
        ) from None
    check_device(device, torch)
    if device != "cpu":
        # cuDNN's attention makes a plan for every new shape of a batch, which takes forty
        # milliseconds, and nearly every batch has a new one.
        torch.backends.cuda.enable_cudnn_sdp(False)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return getattr(sentence_transformers, kind)(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            # Attention is PyTorch's scaled_dot_product_attention wherever the model has it.
            model_kwargs={"dtype": getattr(torch, dtype), "use_safetensors": True},
        )
    except (OSError, ValueError, KeyError, ImportError, AttributeError, RuntimeError) as error:
        raise ConfigurationError(
            f"the {kind} in {folder} cannot be loaded: {first_line(error)}"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()


def check_device(device: str, torch: Any) -> None:
    """Raises ConfigurationError for a device that is not one, or is not there."""
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise ConfigurationError(f"the device {device!r} is not 'cpu', 'cuda' or 'cuda:N'")
    if device == "cpu":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(match[1] or 0) >= count:
        raise ConfigurationError(
            f"the device {device} is not there (CUDA devices found: {count});"
            " choose cpu, or install a CUDA build of torch and a driver"
        )


def input_names(forward: Callable[..., Any], tokenizer: Any) -> tuple[str, ...]:
    """Which of input_ids, attention_mask and token_type_ids the model is given, in this order."""
    accepted = inspect.signature(forward).parameters
    names = ["input_ids", "attention_mask"]
    if "token_type_ids" in accepted and "token_type_ids" in tokenizer.model_input_names:
        names.append("token_type_ids")
    return tuple(names)

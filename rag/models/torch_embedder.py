"""An encoder on PyTorch, through sentence-transformers: for GPUs, and for building."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from rag.errors import ConfigurationError, ModelFailure
from rag.models import layout
from rag.models.batches import length_batches
from rag.models.encoder import EncoderConfig
from rag.models.tokenizer import Tokenizer
from rag.types import Float32

Dtype = Literal["float32", "float16", "bfloat16"]
DEFAULT_BATCH_TOKENS = 32768


class TorchEmbedder:
    """An `Embedder` over a sentence-transformers folder, exported or not.

    `device` is 'cpu', 'cuda' or 'cuda:N'; a device that is not there is a ConfigurationError.
    `config` defaults to what the folder says. Vectors come back as float32 of norm 1 whatever
    `dtype` computes them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: EncoderConfig | None = None,
        device: str = "cpu",
        dtype: Dtype = "float32",
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
    ) -> None:
        if dtype not in get_args(Dtype):
            raise ConfigurationError(f"the dtype {dtype!r} is not one of {get_args(Dtype)}")
        self._config = config or EncoderConfig.read(folder)
        layout.require_safetensors(folder)
        self.model = load_sentence_transformer(folder, device, dtype)
        self._tokenizer = tokenizer_of(self.model)
        self._max_batch_tokens = max_batch_tokens
        self._inputs = model_inputs(self.model)

    @property
    def config(self) -> EncoderConfig:
        return self._config

    def embed_queries(self, texts: Sequence[str]) -> Float32:
        return self._embed(texts, "query")

    def embed_passages(self, texts: Sequence[str]) -> Float32:
        return self._embed(texts, "passage")

    def readable(self, texts: Sequence[str]) -> Float32:
        return self._tokenizer.readable(texts)

    def _embed(self, texts: Sequence[str], role: str) -> Float32:
        import torch

        prompt = self._config.prompts[role]
        encodings = self._tokenizer.tokenize(
            [prompt + text for text in texts], self._config.max_tokens
        )
        lengths = np.array([len(encoding) for encoding in encodings], dtype=np.int64)
        prompt_tokens = self._tokenizer.prompt_tokens(prompt)
        vectors = np.empty((len(texts), self._config.dimension), dtype=np.float32)
        batches = list(length_batches(lengths, self._max_batch_tokens))
        try:
            with torch.inference_mode():
                # All batches are queued before the first copy back, which waits for the device.
                computed = [
                    self._run([encodings[row] for row in rows], prompt_tokens) for rows in batches
                ]
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelFailure(f"the encoder {self._config.name} failed: {reason}") from error
        for rows, batch in zip(batches, computed, strict=True):
            vectors[rows] = batch.cpu().numpy()
        return vectors

    def _run(self, encodings: Sequence[Any], prompt_tokens: int) -> Any:
        import torch

        tokens = self._tokenizer.pad(encodings)
        arrays = {
            "input_ids": tokens.ids,
            "attention_mask": tokens.mask,
            "token_type_ids": tokens.type_ids,
        }
        features: dict[str, Any] = {
            name: torch.from_numpy(arrays[name]).to(self.model.device) for name in self._inputs
        }
        features["prompt_length"] = prompt_tokens
        pooled = self.model(features)["sentence_embedding"][:, : self._config.dimension]
        return torch.nn.functional.normalize(pooled.float(), p=2, dim=-1)


def load_sentence_transformer(folder: Path, device: str = "cpu", dtype: Dtype = "float32") -> Any:
    """The SentenceTransformer in `folder`, in eval mode, from safetensors and no code of its own.

    Raises ConfigurationError, in one line, for a package or a device that is not there and for a
    model that cannot be loaded.
    """
    try:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError as error:
        raise ConfigurationError(
            f"the torch backend needs {error.name}; pip install 'rag-containers[indexer]'"
        ) from None
    check_device(device, torch)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": getattr(torch, dtype), "use_safetensors": True},
        )
    except (OSError, ValueError, KeyError, ImportError, AttributeError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigurationError(f"the encoder in {folder} cannot be loaded: {reason}") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    return model.eval()


def tokenizer_of(model: Any) -> Tokenizer:
    """The tokenizer that a SentenceTransformer uses, as our own; the model's stays untouched."""
    from tokenizers import Tokenizer as Backend

    tokenizer = model.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ConfigurationError(
            f"the tokenizer {type(tokenizer).__name__} has no tokenizer.json form;"
            " choose an encoder with a fast tokenizer"
        )
    return Tokenizer(
        Backend.from_str(backend.to_str()),
        pad_id=tokenizer.pad_token_id or 0,
        truncate_left=tokenizer.truncation_side == "left",
    )


def model_inputs(model: Any) -> tuple[str, ...]:
    """Which of input_ids, attention_mask and token_type_ids the transformer is given, in order."""
    import inspect

    accepted = inspect.signature(model[0].auto_model.forward).parameters
    names = ["input_ids", "attention_mask"]
    if "token_type_ids" in accepted and "token_type_ids" in model.tokenizer.model_input_names:
        names.append("token_type_ids")
    return tuple(names)


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

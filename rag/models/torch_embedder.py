"""An encoder on PyTorch, through sentence-transformers: for GPUs, and for building."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from rag.errors import ConfigurationError, ModelFailure
from rag.models import layout
from rag.models.batches import length_batches
from rag.models.encoder import EncoderConfig
from rag.models.tokenizer import Tokenizer
from rag.models.torch_loading import Dtype, input_names, load_model
from rag.types import Float32, Int64

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

    def query_tokens(self, texts: Sequence[str]) -> Int64:
        prompt = self._config.prompts["query"]
        counts = self._tokenizer.count([prompt + text for text in texts])
        return np.minimum(counts, self._config.max_tokens)

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
    """The SentenceTransformer in `folder`, in eval mode; raises as `load_model` does."""
    return load_model("SentenceTransformer", folder, device, dtype).eval()


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
    """What the transformer is given, as `input_names` says."""
    return input_names(model[0].auto_model.forward, model.tokenizer)

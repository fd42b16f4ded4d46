"""An encoder on PyTorch, through sentence-transformers: for GPUs, and for building."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from rag.errors import ConfigurationError, ModelFailure
from rag.models import layout
from rag.models.batches import length_batches
from rag.models.encoder import EncoderConfig
from rag.models.oom import run_halving, torch_out_of_memory
from rag.models.tokenizer import Tokenizer
from rag.models.torch_forward import Speedup, make_forward
from rag.models.torch_loading import Dtype, load_model
from rag.types import Float32, Int64

logger = logging.getLogger(__name__)

DEFAULT_BATCH_TOKENS = 32768


class TorchEmbedder:
    """An `Embedder` over a sentence-transformers folder, exported or not.

    `device` is 'cpu', 'cuda' or 'cuda:N'; a device that is not there is a ConfigurationError.
    `config` defaults to what the folder says. Vectors come back as float32 of norm 1 whatever
    `dtype` computes them. A batch that runs out of memory is halved, and later ones are no larger
    than what went well; `on_halved` hears of it. `speedup` 'compile' is torch.compile, 'graphs'
    CUDA graphs for small batches (see rag/models/cuda_graphs.py). `max_batch_tokens` bounds the
    padded tokens of a batch, `halvings` counts batches that were too large.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: EncoderConfig | None = None,
        device: str = "cpu",
        dtype: Dtype = "float32",
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        speedup: Speedup = "none",
        on_halved: Callable[[], None] | None = None,
    ) -> None:
        if dtype not in get_args(Dtype):
            raise ConfigurationError(f"the dtype {dtype!r} is not one of {get_args(Dtype)}")
        self._config = config or EncoderConfig.read(folder)
        layout.require_safetensors(folder)
        self.model = load_sentence_transformer(folder, device, dtype)
        self._tokenizer = tokenizer_of(self.model)
        self.device = device
        self.max_batch_tokens = max_batch_tokens
        self.halvings = 0
        self._on_halved = on_halved
        self._forward = make_forward(self.model, self._config.dimension, speedup)

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

    def warm(self) -> None:
        """Captures or compiles what `speedup` says, so that no request waits for it."""
        self._forward.warm()

    def _embed(self, texts: Sequence[str], role: str) -> Float32:
        import torch

        prompt = self._config.prompts[role]
        encodings = self._tokenizer.tokenize(
            [prompt + text for text in texts], self._config.max_tokens
        )
        lengths = np.array([len(encoding) for encoding in encodings], dtype=np.int64)
        prompt_tokens = self._tokenizer.prompt_tokens(prompt)

        def run(rows: Sequence[int]) -> Any:
            tokens = self._tokenizer.pad([encodings[row] for row in rows])
            return self._forward(tokens, prompt_tokens)

        vectors = np.empty((len(texts), self._config.dimension), dtype=np.float32)
        computed: list[tuple[Sequence[int], Any]] = []
        try:
            with torch.inference_mode():
                # All batches are queued before the first copy back, which waits for the device.
                for rows in length_batches(lengths, self.max_batch_tokens):
                    longest = int(lengths[rows].max())
                    halved = partial(self._halved, longest)
                    computed += run_halving(run, rows.tolist(), torch_out_of_memory, halved)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelFailure(f"the encoder {self._config.name} failed: {reason}") from error
        for done, batch in computed:
            vectors[done] = batch.cpu().numpy()
        return vectors

    def _halved(self, longest: int, size: int) -> None:
        """Keeps to what the device can hold, from now on."""
        self.max_batch_tokens = max(longest, min(self.max_batch_tokens, longest * size // 2))
        self.halvings += 1
        self._forward.release()
        logger.warning(
            "out of memory: a batch of %d texts of %d tokens was halved; batches are of at most"
            " %d tokens now", size, longest, self.max_batch_tokens,
        )  # fmt: skip
        if self._on_halved is not None:
            self._on_halved()


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

"""An exported encoder on ONNX Runtime: no torch, no network, ready in a second."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from tokenizers import Encoding

from rag.devices import CPU
from rag.errors import ConfigurationError, ModelFailure
from rag.models.batches import attention_rows, length_batches, packed_batches
from rag.models.encoder import EncoderConfig
from rag.models.onnx_session import first_line, open_session
from rag.models.oom import onnx_out_of_memory, run_halving
from rag.models.packed_graph import ROWS
from rag.models.threads import usable_cpus
from rag.models.tokenizer import Tokenizer
from rag.types import Float32, Int64

logger = logging.getLogger(__name__)

Precision = Literal["float32", "int8"]
GRAPHS: dict[str, str] = {"float32": "onnx/model.onnx", "int8": "onnx/model_int8.onnx"}
PACKED = "onnx/model_packed.onnx"
"""The float32 graph that computes no padding. Where there is one, int8 computes none either."""
WEIGHTS = "onnx/weights.bin"
"""Of the float32 graphs."""
DEFAULT_BATCH_TOKENS = 4096
RUN_TOKENS = 24
"""What a run costs beside its tokens, in tokens: it reads all weights, however few texts it has."""
PACKED_RUN_TOKENS = 256
"""Tokens of a run without padding: many enough for what a run costs beside them, and few enough
that what a layer makes of them stays in the processor's caches.
"""
INT8_RUN_TOKENS = 80
"""The same of int8, for each thread: what it makes is quantized in passes of its own, for which it
must stay in the nearer cache.
"""
ATTENTION_PLACES = 24
"""Of a row of attention: short texts share one."""


class OnnxEmbedder:
    """An `Embedder` over a folder that `export_encoder` wrote.

    A vector does not depend on the texts that it is computed with, to within rounding (1e-6).
    `threads` defaults to the processors that this process may use; `max_batch_tokens` bounds the
    padded tokens that run at once. `device` 'cuda' or 'cuda:N' needs onnxruntime-gpu, and TensorRT
    for `tensorrt`. A batch that runs out of memory is halved; `on_halved` hears of it. On a CPU the
    graph without padding is taken where the folder has one, unless `packed` is False.
    """

    def __init__(
        self,
        folder: Path,
        *,
        precision: Precision = "float32",
        threads: int | None = None,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        device: str = "cpu",
        tensorrt: bool = False,
        on_halved: Callable[[], None] | None = None,
        packed: bool = True,
    ) -> None:
        if precision not in get_args(Precision):
            raise ConfigurationError(f"the precision {precision!r} is not float32 or int8")
        self._config = EncoderConfig.read(folder)
        self._tokenizer = Tokenizer.load(folder)
        has_packed = (folder / PACKED).is_file()
        graph = GRAPHS[precision]
        if has_packed and packed and precision == "float32" and device == CPU:
            graph = PACKED
        # Where a text lies in its row changes sums by their last bit, of which quantized products
        # make a thousandth.
        self._places = 0 if precision == "int8" else ATTENTION_PLACES
        self._precision = precision
        self._packs = has_packed and graph != GRAPHS["float32"]
        self.device = device
        self.threads = threads or usable_cpus()
        self._open = partial(open_session, folder / graph, device=device, tensorrt=tensorrt)
        self._session = self._open(self.threads)
        self._on_halved = on_halved
        self._inputs = {item.name for item in self._session.get_inputs()}
        self._max_batch_tokens = max_batch_tokens
        self._prompt_tokens = {
            role: self._tokenizer.prompt_tokens(prompt)
            for role, prompt in self._config.prompts.items()
        }
        for role, count in self._prompt_tokens.items():
            if count + self._tokenizer.special >= self._config.max_tokens:
                raise ConfigurationError(
                    f"the {role} prompt takes {count} of {self._config.max_tokens} tokens;"
                    " shorten it or raise max_tokens"
                )

    @property
    def config(self) -> EncoderConfig:
        return self._config

    def divided(self, callers: int) -> OnnxEmbedder:
        """The same encoder for so many callers at once: each calls on its own thread, and what is
        left of `threads` helps them all. Its memory is the weights as the runtime arranges them.
        """
        part = copy.copy(self)
        part.threads = max(1, self.threads - callers + 1)
        part._session = self._open(part.threads)
        return part

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
        prompt = self._config.prompts[role]
        prompted = [prompt + text for text in texts]
        encodings = self._tokenizer.tokenize(prompted, self._config.max_tokens)
        lengths = np.array([len(encoding) for encoding in encodings], dtype=np.int64)
        vectors = np.empty((len(texts), self._config.dimension), dtype=np.float32)

        def run(rows: Sequence[int]) -> Float32:
            return self._run([encodings[row] for row in rows], self._prompt_tokens[role])

        if self._packs:
            run_tokens = PACKED_RUN_TOKENS
            if self._precision == "int8":
                run_tokens = min(run_tokens, INT8_RUN_TOKENS * self.threads)
            batches = packed_batches(lengths, self._max_batch_tokens, run_tokens)
        else:
            batches = length_batches(lengths, self._max_batch_tokens, run_tokens=RUN_TOKENS)
        for rows in batches:
            for done, part in run_halving(run, rows.tolist(), _out_of_memory, self._halved):
                vectors[done] = part
        return vectors

    def _halved(self, size: int) -> None:
        logger.warning("out of memory: a batch of %d texts was halved", size)
        if self._on_halved is not None:
            self._on_halved()

    def _run(self, encodings: Sequence[Encoding], prompt_tokens: int) -> Float32:
        tokens = self._tokenizer.pad(encodings)
        feed: dict[str, Int64] = {"input_ids": tokens.ids, "attention_mask": tokens.mask}
        if "token_type_ids" in self._inputs:
            feed["token_type_ids"] = tokens.type_ids
        if ROWS in self._inputs:
            lengths = np.array([len(encoding) for encoding in encodings], dtype=np.int64)
            feed[ROWS] = attention_rows(lengths, self._places)
        if "pooling_mask" in self._inputs:
            feed["pooling_mask"] = tokens.mask.copy()
            feed["pooling_mask"][:, :prompt_tokens] = 0
        try:
            vectors: Float32 = self._session.run(["sentence_embedding"], feed)[0]
        except Exception as error:
            raise ModelFailure(
                f"the encoder {self._config.name} failed: {first_line(error)}"
            ) from error
        return vectors


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error.__cause__, Exception) and onnx_out_of_memory(error.__cause__)

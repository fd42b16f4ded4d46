"""A cross-encoder on ONNX Runtime: no torch, no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rag.errors import RerankerFailure
from rag.models.cross_encoder import DEFAULT_BATCH_TOKENS, CrossEncoderConfig, score_pairs
from rag.models.onnx_session import first_line, open_session
from rag.models.pairs import PairTokenizer
from rag.models.threads import usable_cpus
from rag.models.tokenizer import Tokenizer, Tokens
from rag.types import Float32, Int64

GRAPH = "onnx/model.onnx"


class OnnxReranker:
    """A `Reranker` over a folder with config.json, tokenizer.json and onnx/model.onnx.

    `export_reranker` writes one; a folder that others exported serves too, if its graph has the
    output `logits` (batch, 1). Only the passage is cut to fit (see `PairTokenizer`).
    `threads` defaults to the processors that this process may use; `max_batch_tokens` bounds the
    padded tokens that run at once. Raises ConfigurationError for any other folder.
    """

    concurrency = 1

    def __init__(
        self,
        folder: Path,
        *,
        threads: int | None = None,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
    ) -> None:
        self.config = CrossEncoderConfig.read(folder)
        self._tokenizer = PairTokenizer(Tokenizer.load(folder), self.config.max_tokens)
        self._session = open_session(folder / GRAPH, threads or usable_cpus())
        self._inputs = {item.name for item in self._session.get_inputs()}
        self._max_batch_tokens = max_batch_tokens

    @property
    def name(self) -> str:
        return self.config.name

    def score(self, query: str, texts: Sequence[str], *, deadline: float | None = None) -> Float32:
        return score_pairs(
            self._run,
            self._tokenizer,
            self.config,
            query,
            texts,
            max_batch_tokens=self._max_batch_tokens,
            deadline=deadline,
        )

    def close(self) -> None:
        """Nothing is held but memory."""

    def _run(self, tokens: Tokens) -> Float32:
        feed: dict[str, Int64] = {"input_ids": tokens.ids, "attention_mask": tokens.mask}
        if "token_type_ids" in self._inputs:
            feed["token_type_ids"] = tokens.type_ids
        try:
            logits: Float32 = self._session.run(["logits"], feed)[0]
        except Exception as error:
            raise RerankerFailure(
                f"the reranker {self.name} failed: {first_line(error)}"
            ) from error
        return logits

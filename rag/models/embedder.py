"""What an encoder is, whatever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rag.models.encoder import EncoderConfig
from rag.types import Float32


class Embedder(Protocol):
    """Turns texts into unit vectors.

    Both methods return float32 (len(texts), config.dimension), each row of L2 norm 1, in the
    order of `texts`, and put the configured prompt before each text. An empty sequence gives an
    array of shape (0, dimension). A text longer than the encoder reads is cut at
    `config.max_tokens` tokens: callers that must not lose text count first
    (`rag.models.tokenizer.Tokenizer`). Safe to call from several threads.
    """

    @property
    def config(self) -> EncoderConfig: ...

    def embed_queries(self, texts: Sequence[str]) -> Float32: ...

    def embed_passages(self, texts: Sequence[str]) -> Float32: ...

    def readable(self, texts: Sequence[str]) -> Float32:
        """float32 (n,), 0 to 1: the share of each text's letters that the encoder can read."""
        ...

"""What an encoder is, whatever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from rag.models.encoder import EncoderConfig
from rag.types import Float32, Int64


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

    def query_tokens(self, texts: Sequence[str]) -> Int64:
        """int64 (n,): what the encoder reads of each text as a query, prompt and all."""
        ...


@runtime_checkable
class Placed(Protocol):
    """An embedder that knows its device."""

    @property
    def device(self) -> str: ...


@runtime_checkable
class Budgeted(Placed, Protocol):
    """One that also knows how many padded tokens its device takes at once."""

    @property
    def max_batch_tokens(self) -> int: ...


@runtime_checkable
class Divisible(Protocol):
    """An embedder whose threads can be divided among callers. One thread computes a batch of
    texts for less than several do, which wait for each other after every step; several compute a
    text that comes alone sooner.
    """

    @property
    def threads(self) -> int:
        """On how many a call runs."""
        ...

    def divided(self, callers: int) -> Embedder:
        """The same encoder for so many callers at once, on as many threads in all."""
        ...


class EncodedQuery(NamedTuple):
    """What a search needs of a query's encoder: its unit vector, float32 (d,), and the share of
    its letters that the encoder can read, 0 to 1.
    """

    vector: Float32
    readable: float


def encode_queries(embedder: Embedder, texts: Sequence[str]) -> list[EncodedQuery]:
    """Every text as `embedder` sees it, in order; equal texts are computed once."""
    different = list(dict.fromkeys(texts))
    if not different:
        return []
    vectors, readable = embedder.embed_queries(different), embedder.readable(different)
    made = map(EncodedQuery, vectors, readable.tolist())
    known = dict(zip(different, made, strict=True))
    return [known[text] for text in texts]

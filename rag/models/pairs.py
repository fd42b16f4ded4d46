"""Pairs of query and passage into tokens, the passage cut where both are too long."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from rag.errors import ConfigurationError
from rag.models.tokenizer import Tokenizer, Tokens


class PairTokenizer:
    """A cross-encoder's tokenizer. Holds no truncation or padding state; safe from threads.

    A pair has at most `max_tokens` tokens, special ones included. Only the end of the passage is
    cut, never the query; but a query that takes more than half of the room beside special tokens
    is itself cut, at that half. Raises ConfigurationError where `max_tokens` leaves no room.
    """

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._backend = Backend.from_str(tokenizer.to_json())
        self._room = max_tokens - self._backend.num_special_tokens_to_add(True)
        if self._room < 2:
            raise ConfigurationError(
                f"max_tokens is {max_tokens}, which leaves no room for a query and a passage"
            )

    def tokenize(self, query: str, texts: Sequence[str]) -> list[Encoding]:
        """One encoding of (query, text) for each text, in their order."""
        asked = self._backend.encode(query, add_special_tokens=False)
        asked.truncate(self._room - self._room // 2)
        left = self._room - len(asked)
        # Not as one batch: the library's thread pool does not survive a fork.
        passages = [self._backend.encode(text, add_special_tokens=False) for text in texts]
        for passage in passages:
            passage.truncate(left)
        return [self._backend.post_process(asked, passage) for passage in passages]

    def pad(self, encodings: Sequence[Encoding]) -> Tokens:
        """The encodings as arrays (n, longest), padded on the right."""
        return self._tokenizer.pad(encodings)

"""What is put before a passage when it is embedded and indexed: title, headings, table header."""

from __future__ import annotations

from typing import NamedTuple

from indexer.chunking.tokens import token_starts
from rag.models.encoder import EncoderConfig
from rag.models.tokenizer import Tokenizer

_CUT = "…"
_SHARE = 4
"""Names, and a table's header, may each take one part in so many of what the encoder reads."""


class Context(NamedTuple):
    """`text` as it stands before the passage, and the tokens that it leaves for the passage."""

    text: str
    room: int


class ContextWriter:
    """Writes the contexts of one document: 'Title', then 'Heading > Heading', then the header.

    What is too long is shortened where one sees it ('…'): first outer headings are left out, then
    lines are cut. The title is not repeated where the first heading says the same.
    """

    def __init__(self, title: str, tokenizer: Tokenizer, config: EncoderConfig) -> None:
        self._tokenizer = tokenizer
        self._prompt = config.prompts["passage"]
        self._max_tokens = config.max_tokens
        self._limit = room(tokenizer, config) // _SHARE
        self._whole_title = " ".join(title.split())
        self._title = self._clip(self._whole_title, self._limit // 2)
        self._known: dict[tuple[tuple[str, ...], str], Context] = {}
        self._empty = self._measure("")

    def empty(self) -> Context:
        return self._empty

    def write(self, headings: tuple[str, ...], table_header: str = "") -> Context:
        """The context under `headings`, inside a table with `table_header` ('' = outside)."""
        key = (headings, table_header)
        if key not in self._known:
            names = self._names(headings)
            header = self._clip(table_header.strip(), self._limit)
            self._known[key] = self._measure("\n".join(line for line in (*names, header) if line))
        return self._known[key]

    def _names(self, headings: tuple[str, ...]) -> list[str]:
        below = [name for name in headings if name]
        if below and below[0] == self._whole_title:
            below = below[1:]
        left_out = False
        while True:
            path = " > ".join([_CUT, *below] if left_out else below)
            if len(below) < 2 or self._size(f"{self._title}\n{path}") <= self._limit:
                break
            below, left_out = below[1:], True
        room = max(self._limit - self._size(self._title), self._limit // 2)
        return [self._title, self._clip(path, room)]

    def _clip(self, line: str, tokens: int) -> str:
        starts = token_starts(self._tokenizer, line)
        if len(starts) <= tokens:
            return line
        return line[: int(starts[tokens])].rstrip() + _CUT

    def _size(self, text: str) -> int:
        return len(token_starts(self._tokenizer, text))

    def _measure(self, text: str) -> Context:
        before = f"{self._prompt}{text}\n" if text else self._prompt
        return Context(text, self._max_tokens - int(self._tokenizer.count([before])[0]))


def room(tokenizer: Tokenizer, config: EncoderConfig) -> int:
    """How many tokens a passage without context may have, beside prompt and special tokens."""
    return config.max_tokens - int(tokenizer.count([config.prompts["passage"]])[0])

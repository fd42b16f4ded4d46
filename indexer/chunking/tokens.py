"""Where the encoder's tokens begin in a text: the ruler that chunks are measured with."""

from __future__ import annotations

import numpy as np

from rag.models.tokenizer import Tokenizer
from rag.types import Document, Int64

# A tokenizer may read a word of any length, or a run of characters it does not know, as a single
# token. Longer stretches than _WIDEST characters therefore count as one token each _STEP
# characters, so that no chunk grows without bound; ordinary words are never that long.
_WIDEST = 32
_STEP = 8


def token_starts(tokenizer: Tokenizer, text: str) -> Int64:
    """int64 (m,), ascending: where each token of `text` begins, special tokens not counted.

    Several tokens may begin at one character. Stretches without a token count as stated above.
    """
    starts = np.maximum.accumulate(tokenizer.offsets(text)[:, 0])
    edges = np.concatenate(([0], starts, [len(text)]))
    wide = np.flatnonzero(np.diff(edges) > _WIDEST)
    if not len(wide):
        return starts
    extra = [np.arange(edges[i] + _STEP, edges[i + 1], _STEP) for i in wide]
    return np.sort(np.concatenate([starts, *extra]))


class TokenMap:
    """The tokens of a document, each block tokenised once.

    Positions are characters of `document.text`. Counts are those of the blocks as they stand; a
    slice that begins or ends inside a word may come out different when it is tokenised alone.
    """

    def __init__(self, document: Document, tokenizer: Tokenizer) -> None:
        parts: list[Int64] = []
        for number, block in enumerate(document.blocks):
            following = document.blocks[number + 1 : number + 2]
            # The white space after a block belongs to it: some tokenizers count it.
            end = following[0].start if following else block.end
            parts.append(token_starts(tokenizer, document.text[block.start : end]) + block.start)
        self._starts: Int64 = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        self._length = len(document.text)

    def count(self, start: int, end: int) -> int:
        """How many tokens begin in [start, end)."""
        return self._index(end) - self._index(start)

    def reach(self, start: int, tokens: int) -> int:
        """The furthest end for which [start, end) holds no more than `tokens` tokens."""
        index = self._index(start) + tokens
        return int(self._starts[index]) if index < len(self._starts) else self._length

    def back(self, end: int, tokens: int) -> int:
        """The earliest token start for which [start, end) holds no more than `tokens` tokens."""
        index = self._index(end) - tokens
        if index <= 0:
            return 0
        if index < len(self._starts) and self._starts[index - 1] == self._starts[index]:
            # Tokens that share a character are taken or left together.
            index = int(np.searchsorted(self._starts, self._starts[index], side="right"))
        return min(int(self._starts[index]), end) if index < len(self._starts) else end

    def _index(self, position: int) -> int:
        return int(np.searchsorted(self._starts, position, side="left"))

"""Where the encoder's tokens begin in a text: the ruler that chunks are measured with."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import chain, pairwise
from operator import sub

from rag.models.tokenizer import Tokenizer
from rag.types import Document

# A tokenizer may read a word of any length, or a run of characters it does not know, as a single
# token. Longer stretches than _WIDEST characters therefore count as one token each _STEP
# characters, so that no chunk grows without bound; ordinary words are never that long.
_WIDEST = 32
_STEP = 8


def token_starts(tokenizer: Tokenizer, text: str) -> list[int]:
    """Where each token of `text` begins, ascending, special tokens not counted.

    Several tokens may begin at one character. Stretches without a token count as stated above.
    """
    starts = tokenizer.starts(text)
    ends = [*starts, len(text)]
    if max(map(sub, ends, [0, *starts])) <= _WIDEST:
        return starts
    extra = (
        range(start + _STEP, end, _STEP)
        for start, end in pairwise([0, *ends])
        if end - start > _WIDEST
    )
    return sorted(chain(starts, *extra))


class TokenMap:
    """The tokens of a document, each block tokenised once.

    Positions are characters of `document.text`. Counts are those of the blocks as they stand; a
    slice that begins or ends inside a word may come out different when it is tokenised alone.
    """

    def __init__(self, document: Document, tokenizer: Tokenizer) -> None:
        self._starts: list[int] = []
        for number, block in enumerate(document.blocks):
            following = document.blocks[number + 1 : number + 2]
            # The white space after a block belongs to it: some tokenizers count it.
            end = following[0].start if following else block.end
            inside = token_starts(tokenizer, document.text[block.start : end])
            self._starts.extend(block.start + start for start in inside)
        self._length = len(document.text)

    def count(self, start: int, end: int) -> int:
        """How many tokens begin in [start, end)."""
        return bisect_left(self._starts, end) - bisect_left(self._starts, start)

    def reach(self, start: int, tokens: int) -> int:
        """The furthest end for which [start, end) holds no more than `tokens` tokens."""
        index = bisect_left(self._starts, start) + tokens
        return self._starts[index] if index < len(self._starts) else self._length

    def back(self, end: int, tokens: int) -> int:
        """The earliest token start for which [start, end) holds no more than `tokens` tokens."""
        index = bisect_left(self._starts, end) - tokens
        if index <= 0:
            return 0
        if index < len(self._starts) and self._starts[index - 1] == self._starts[index]:
            # Tokens that share a character are taken or left together.
            index = bisect_right(self._starts, self._starts[index])
        return min(self._starts[index], end) if index < len(self._starts) else end

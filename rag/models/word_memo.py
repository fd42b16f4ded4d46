"""The tokens of words that were met before, for tokenizers that read word by word."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import accumulate, chain
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers.models import WordPiece

_MEMO_SIZE = 1 << 17
_LONGEST = 64  # characters of a word that is kept
_SPACES = "\n\r\t"
_Starts = tuple[int, ...]


class WordMemo:
    """Where tokens begin, by the words between spaces; each word is tokenised once.

    Texts are mostly words that were met before, and looking one up takes a hundredth of the time
    that tokenising it does. Bounded; safe to use from several threads.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._memo: dict[str, _Starts] = {"": ()}
        added = backend.get_added_tokens_decoder().values()
        self._wide = [token.content for token in added if token.lstrip]

    @classmethod
    def of(cls, backend: Backend) -> WordMemo | None:
        """None unless the tokens of a text are those of its words, as in BERT's tokenizers: what
        they normalise never reaches over a space, and no token has one in it.
        """
        if not isinstance(backend.model, WordPiece):
            return None
        if _kinds(backend.pre_tokenizer) != ["BertPreTokenizer"]:
            return None
        if not set(_kinds(backend.normalizer)) <= {"BertNormalizer", "Lowercase"}:
            return None
        added = backend.get_added_tokens_decoder().values()
        if any(len(token.content.split()) != 1 for token in added):
            return None
        if any(token.lstrip and token.normalized for token in added):
            return None
        return cls(backend)

    def starts(self, text: str) -> list[int]:
        """The first character of each token of `text`, ascending, without special tokens."""
        if any(token in text for token in self._wide):  # begins at the spaces before it
            encoding = self._backend.encode(text, add_special_tokens=False)
            return list(accumulate((start for start, _ in encoding.offsets), max))
        words = _words(text)
        # One more than its length takes each word, for the space behind it.
        places = accumulate((len(word) + 1 for word in words), initial=0)
        return [
            place + start
            for place, starts in zip(places, self._starts(words), strict=False)
            for start in starts
        ]

    def count(self, text: str) -> int:
        """How many tokens `text` has, without special tokens."""
        return sum(map(len, self._starts(_words(text))))

    def _starts(self, words: list[str]) -> Iterable[_Starts]:
        memo = self._memo
        found = list(map(memo.get, words))
        if None not in found:
            return chain(found)  # type: ignore[arg-type]
        new = list({word for word, starts in zip(words, found, strict=True) if starts is None})
        encodings = self._backend.encode_batch(new, add_special_tokens=False)
        made = {
            word: tuple(accumulate((start for start, _ in encoding.offsets), max))
            for word, encoding in zip(new, encodings, strict=True)
        }
        if len(memo) >= _MEMO_SIZE:
            self._memo = memo = {"": ()}
        memo.update((word, starts) for word, starts in made.items() if len(word) <= _LONGEST)
        return (
            made[word] if starts is None else starts
            for word, starts in zip(words, found, strict=True)
        )


def _words(text: str) -> list[str]:
    for space in _SPACES:
        text = text.replace(space, " ")
    return text.split(" ")


def _kinds(part: Any) -> list[str]:
    """The types of a tokenizer's part, and of the steps of a sequence of such parts."""
    if part is None:
        return []
    state = json.loads(part.__getstate__())
    steps = state.get("normalizers", state.get("pretokenizers", [state]))
    return [str(step["type"]) for step in steps]

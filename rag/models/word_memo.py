"""The tokens of words that were met before, for tokenizers that read word by word."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers.models import WordPiece

_MEMO_SIZE = 1 << 17
_LONGEST = 256  # characters of a word that is kept
_SPACES = "\n\r\t"
_PARTS = re.compile("[0-9A-Za-z]+|[^0-9A-Za-z]")
_Starts = tuple[int, ...]


class WordMemo:
    """Where tokens begin, by the words between spaces; each word is tokenised once.

    Texts are mostly words that were met before, and looking one up takes a hundredth of the time
    that tokenising it does. Words in ASCII are known by their parts, between which BERT's
    tokenizers cut in any case. Bounded; safe to use from several threads.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._memo: dict[str, _Starts] = {"": ()}
        added = backend.get_added_tokens_decoder().values()
        self._wide = [token.content for token in added if token.lstrip]
        contents = "|".join(re.escape(token.content) for token in added) or "(?!)"
        self._added = re.compile(contents, re.IGNORECASE)

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

    def _starts(self, words: list[str]) -> Sequence[_Starts]:
        memo = self._memo
        found = list(map(memo.get, words))
        new = {word for word, starts in zip(words, found, strict=True) if starts is None}
        if new:
            if len(memo) >= _MEMO_SIZE:
                self._memo = memo = {"": ()}
            made = self._tokenized(new, memo)
            return [
                made[word] if starts is None else starts
                for word, starts in zip(words, found, strict=True)
            ]
        return found  # type: ignore[return-value]

    def _tokenized(self, words: set[str], memo: dict[str, _Starts]) -> dict[str, _Starts]:
        """The tokens of words that are not in `memo`, which from then on has those not too long."""
        parts = {word: _PARTS.findall(word) for word in words if self._has_parts(word)}
        whole = words - parts.keys()
        pieces = chain.from_iterable(parts.values())
        new = [*whole, *{piece for piece in pieces if piece not in memo}]
        encodings = self._backend.encode_batch(new, add_special_tokens=False)
        made = {
            word: tuple(accumulate((start for start, _ in encoding.offsets), max))
            for word, encoding in zip(new, encodings, strict=True)
        }
        for word, found in parts.items():
            if len(found) > 1:
                place, starts = 0, []
                for piece in found:
                    starts += [place + start for start in made.get(piece) or memo.get(piece, ())]
                    place += len(piece)
                made[word] = tuple(starts)
        memo.update((word, starts) for word, starts in made.items() if len(word) <= _LONGEST)
        return made

    def _has_parts(self, word: str) -> bool:
        """Whether its runs of letters and digits, and its signs, are read each by itself."""
        return word.isascii() and word.isprintable() and not self._added.search(word)


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

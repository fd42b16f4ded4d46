"""Text into tokens, over the `tokenizers` library alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Encoding, normalizers
from tokenizers import Tokenizer as Backend

from rag.errors import ConfigurationError
from rag.models import layout
from rag.models.word_memo import WordMemo
from rag.types import Float32, Int64

# Fewer texts than this are tokenised on the calling thread: the library's thread pool does not
# survive a fork, and a service that never starts it has nothing to lose in one.
_POOL_FROM = 64
_SYLLABLES = 0x1100
"""From here on, Unicode's letters are mostly syllables and ideographs: one may be a word, to a
vocabulary that has many of them (Hangul alone has 11,172, common Chinese 3,500)."""
_MANY = 2000


class Tokens(NamedTuple):
    """ids, mask and type_ids: int64 (n, longest), padded on the right; mask is 1 on a token."""

    ids: Int64
    mask: Int64
    type_ids: Int64


class Tokenizer:
    """An encoder's tokenizer. Holds no truncation or padding state; safe to call from threads."""

    def __init__(self, backend: Backend, *, pad_id: int = 0, truncate_left: bool = False) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._pad_id = pad_id
        self._direction = "left" if truncate_left else "right"
        self._unknown: str | None = getattr(backend.model, "unk_token", None)
        self.special: int = backend.num_special_tokens_to_add(False)
        """How many special tokens are put around one text."""

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Reads tokenizer.json and the settings beside it; ConfigurationError if there is none."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ConfigurationError(
                f"{folder} has no tokenizer.json; export the encoder, which writes one"
            )
        try:
            backend = Backend.from_file(str(path))
        except Exception as error:  # noqa: BLE001 - the library raises bare Exception
            raise ConfigurationError(f"{path} cannot be read ({error}); get it again") from None
        if layout.transformer_config(folder).get("do_lower_case"):
            steps = [normalizers.Lowercase()]
            if backend.normalizer is not None:
                steps.append(backend.normalizer)
            backend.normalizer = normalizers.Sequence(steps)
        settings = layout.read_json(folder / "tokenizer_config.json")
        return cls(
            backend,
            pad_id=_pad_id(folder, settings, backend),
            truncate_left=settings.get("truncation_side") == "left",
        )

    def count(self, texts: Sequence[str]) -> Int64:
        """int64 (n,): tokens of each text, special ones included, nothing cut."""
        if self._memo is not None:
            found = [self._memo.count(text) + self.special for text in texts]
        else:
            found = [len(encoding) for encoding in self._encode(texts)]
        return np.array(found, dtype=np.int64)

    def starts(self, text: str) -> list[int]:
        """The first character of each token of `text`, ascending, without special tokens."""
        if self._memo is not None:
            return self._memo.starts(text)
        return list(accumulate(self.offsets(text)[:, 0].tolist(), max))

    def offsets(self, text: str) -> Int64:
        """int64 (m, 2): [start, end) in characters of each token of `text`, in order.

        Without special tokens, nothing cut. Tokens may share characters (a byte-level token is a
        part of one), and characters that the tokenizer drops are in none.
        """
        encoding = self._backend.encode(text, add_special_tokens=False)
        return np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)

    def readable(self, texts: Sequence[str]) -> Float32:
        """float32 (n,), 0 to 1: the share of each text's letters that the vocabulary can read.

        A letter is not read if its token is the unknown one, if it takes several tokens (a Hangul
        syllable in its parts, a character in its bytes), or if it is a token by itself inside of a
        word, unless it is a syllable or ideograph to a vocabulary that has many. Texts in ASCII
        are taken as read, and so are texts without letters.
        """
        return np.array([self._readable(text) for text in texts], dtype=np.float32)

    def encode(self, texts: Sequence[str], max_tokens: int) -> Tokens:
        """`tokenize`, then `pad`: the model's inputs for all of `texts`, in their order."""
        return self.pad(self.tokenize(texts, max_tokens))

    def tokenize(self, texts: Sequence[str], max_tokens: int) -> list[Encoding]:
        """One encoding for each text, in order, each cut at `max_tokens`.

        Special tokens count, and are kept. Raises ConfigurationError where max_tokens leaves no
        room beside them.
        """
        if max_tokens <= self.special:
            raise ConfigurationError(
                f"max_tokens is {max_tokens}, special tokens alone take {self.special}"
            )
        return [
            encoding if len(encoding) <= max_tokens else self._cut(text, max_tokens)
            for text, encoding in zip(texts, self._encode(texts), strict=True)
        ]

    def pad(self, encodings: Sequence[Encoding]) -> Tokens:
        """The encodings as arrays (n, longest), in order; shape (0, 0) for none."""
        shape = (len(encodings), max((len(encoding) for encoding in encodings), default=0))
        ids = np.full(shape, self._pad_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        type_ids = np.zeros(shape, dtype=np.int64)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding)] = encoding.ids
            mask[row, : len(encoding)] = 1
            type_ids[row, : len(encoding)] = encoding.type_ids
        return Tokens(ids, mask, type_ids)

    def prompt_tokens(self, prompt: str) -> int:
        """How many tokens at the head of a text belong to `prompt`, leading special ones included.

        A special token that ends the prompt when it stands alone does not count.
        """
        if not prompt:
            return 0
        encoding = self._backend.encode(prompt)
        last_is_special = bool(len(encoding)) and encoding.special_tokens_mask[-1] == 1
        return len(encoding) - int(last_is_special)

    def to_json(self) -> str:
        """tokenizer.json, without truncation or padding."""
        return json.dumps(json.loads(self._backend.to_str()), ensure_ascii=False, indent=1) + "\n"

    @cached_property
    def _memo(self) -> WordMemo | None:
        return WordMemo.of(self._backend)

    @cached_property
    def _has_syllables(self) -> bool:
        vocabulary = self._backend.get_vocab()
        return sum(any(ord(c) >= _SYLLABLES for c in token) for token in vocabulary) >= _MANY

    def _readable(self, text: str) -> float:
        if text.isascii():
            return 1.0
        letters = {place for place, character in enumerate(text) if character.isalpha()}
        if not letters:
            return 1.0
        encoding = self._backend.encode(text, add_special_tokens=False)
        read: set[int] = set()
        split: set[int] = set()
        spans = zip(encoding.tokens, encoding.offsets, strict=True)
        for token, (start, end) in spans:
            whole = token != self._unknown and (
                end - start > 1
                or (self._has_syllables and ord(text[start : start + 1] or " ") >= _SYLLABLES)
                or not (start - 1 in letters or end in letters)
            )
            if whole and start not in read:
                read.update(range(start, end))
            else:
                split.update(range(start, end))
        return len(letters & (read - split)) / len(letters)

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        if len(texts) < _POOL_FROM:
            return [self._backend.encode(text) for text in texts]
        return list(self._backend.encode_batch_fast(list(texts)))

    def _cut(self, text: str, max_tokens: int) -> Encoding:
        encoding = self._backend.encode(text, add_special_tokens=False)
        encoding.truncate(max_tokens - self.special, direction=self._direction)
        return self._backend.post_process(encoding)


def _pad_id(folder: Path, settings: dict[str, Any], backend: Backend) -> int:
    token = settings.get("pad_token")
    found = backend.token_to_id(token["content"] if isinstance(token, dict) else token or "")
    if found is not None:
        return found
    # Masked positions have no influence, so any id in the vocabulary will do.
    return int(layout.read_json(folder / "config.json").get("pad_token_id") or 0)

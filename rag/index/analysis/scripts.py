"""Which script a character belongs to, as far as it decides how text is cut into terms."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

MAX_LENGTH = 64
"""Characters of a term; longer ones (encoded data) are cut."""
HANGUL = "\u1100-\u11ff\u3131-\u318e\ua960-\ua97f\uac00-\ud7ff"
HAN_KANA = (
    "\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u0900-\u0963\u0966-\u0eff\u1000-\u109f\u1780-\u17d3"
)
"""Combining marks, which are parts of words though no letters, and scripts that rely on them."""

_HANGUL = re.compile(f"[{HANGUL}]")
_HANGUL_RUN = re.compile(f"[{HANGUL}]+")
_HAN_KANA_RUN = re.compile(f"[{HAN_KANA}]+")


def normalize(text: str) -> str:
    """Unicode NFKC: full-width letters, ligatures and the like become the plain ones."""
    if text.isascii() or unicodedata.is_normalized("NFKC", text):
        return text
    return unicodedata.normalize("NFKC", text)


def has_hangul(text: str) -> bool:
    """Whether Korean script occurs in `text`."""
    return not text.isascii() and _HANGUL.search(text) is not None


def hangul_bigrams(text: str) -> list[str]:
    """Overlapping pairs of syllables in each run of Hangul; a lone syllable is itself a term."""
    return list(_bigrams(_HANGUL_RUN, text))


def han_kana_bigrams(text: str) -> list[str]:
    """Overlapping pairs of characters in each run of Han and Kana; a lone one is itself a term."""
    return list(_bigrams(_HAN_KANA_RUN, text))


def _bigrams(run: re.Pattern[str], text: str) -> Iterator[str]:
    for found in run.findall(text):
        if len(found) == 1:
            yield found
        for i in range(len(found) - 1):
            yield found[i : i + 2]

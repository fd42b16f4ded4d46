"""Text of spaced scripts to terms: words, numbers and identifiers; folded, stopped, stemmed.

`state-of-the-art` gives its words, `U.S.A.` gives usa, `1,000` gives 1000, `3.11` and `v2.1` stay
whole, `C++` and `C#` keep their sign; `who` is a stop word,
`WHO` is not. Identifiers give themselves and their parts: `read_only`
gives read_only, read, only; `MiniLM` gives minilm, mini, lm.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Mapping

import Stemmer

from rag.errors import ConfigurationError
from rag.index.analysis.scripts import HAN_KANA, HANGUL, MARKS, MAX_LENGTH

MEMO_SIZE = 1 << 17

_LUCENE = """
a an and are as at be but by for if in into is it no not of on or such that the their then there
these they this to was will with
"""
_SNOWBALL = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her
hers herself it its itself they them their theirs themselves what which who whom this that these
those am is are was were be been being have has had having do does did doing would should could
ought a an the and but if or because as until while of at by for with about against between into
through during before after above below to from up down in out on off over under again further then
once here there when where why how all any both each few more most other some such no nor not only
own same so than too very cannot
i'm you're he's she's it's we're they're i've you've we've they've i'd you'd he'd she'd we'd they'd
i'll you'll he'll she'll we'll they'll isn't aren't wasn't weren't hasn't haven't hadn't doesn't
don't didn't won't wouldn't shan't shouldn't can't couldn't mustn't let's that's who's what's here's
there's when's where's why's how's
"""


STOP_WORDS: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "lucene": frozenset(_LUCENE.split()),  # of Lucene's EnglishAnalyzer
    # With Snowball's, which has the words that questions are made of.
    "english": frozenset((_LUCENE + _SNOWBALL).split()),
}


def _token_pattern(letter: str, marks: str = "") -> re.Pattern[str]:
    """`letter` is a character class for letters, digits and '_'; `marks` one for what may follow.

    No part can match what the one before it could, so the time is linear in the text.
    """
    word = f"{letter}+(?:{marks}+{letter}*)*" if marks else f"{letter}+"
    acronym = r"(?:[A-Za-z]\.){2,}(?:[A-Za-z](?![A-Za-z0-9_]))?"
    number = r"(?:(?<=[0-9])(?:\.[0-9]|,(?=[0-9]{3}(?![0-9]))[0-9])[0-9A-Za-z]*)*"
    apostrophe = r"(?:['’][A-Za-z]+)*"
    sign = r"(?:(?<![0-9A-Za-z_][A-Za-z])(?<=[A-Za-z])(?:\+\+|\#))?"
    return re.compile(f"{acronym}|{word}{number}{apostrophe}{sign}")


_ASCII = _token_pattern("[0-9A-Za-z_]")
_ANY = _token_pattern(r"\w", f"[{MARKS}]")
_SPACED = _token_pattern(rf"[^\W{HANGUL}{HAN_KANA}]", f"[{MARKS}]")
_ACRONYM = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]?")
_HUMPS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^A-Za-z0-9]+")
_PLURAL_ACRONYM = re.compile(r"[A-Z]{2,}s")


def _folding() -> dict[int, str | None]:
    """Latin and Greek letters without their diacritics, for str.translate."""
    table: dict[int, str | None] = dict.fromkeys(range(0x300, 0x370))
    table |= {ord("æ"): "ae", ord("œ"): "oe", ord("þ"): "th"}
    table |= dict(zip(map(ord, "øđðłħıŧ"), "oddlhit", strict=True))
    for start, end in ((0xC0, 0x250), (0x370, 0x400), (0x1E00, 0x2000)):
        for code in range(start, end):
            base = unicodedata.normalize("NFD", chr(code))[0]
            if base != chr(code):
                table[code] = base
    return table


_FOLDING = _folding()


class Words:
    """Cuts text into terms; safe to use from several threads.

    `stemmer` names a Snowball algorithm or is 'none', `stopwords` is a key of STOP_WORDS. With
    `spaced_only`, Hangul, Han and Kana are left to others. Raises ConfigurationError.
    """

    def __init__(self, *, stemmer: str, stopwords: str, spaced_only: bool) -> None:
        if stopwords not in STOP_WORDS:
            raise ConfigurationError(
                f"unknown stop words '{stopwords}'; use one of {', '.join(sorted(STOP_WORDS))}"
            )
        if stemmer != "none" and stemmer not in Stemmer.algorithms():
            raise ConfigurationError(
                f"unknown stemmer '{stemmer}'; use none or one of {', '.join(Stemmer.algorithms())}"
            )
        self._stop = STOP_WORDS[stopwords]
        self._stemmer = None if stemmer == "none" else Stemmer.Stemmer(stemmer)
        self._stemming = threading.Lock()  # Snowball stemmers keep state while they work
        self._pattern = _SPACED if spaced_only else _ANY
        self._memo: dict[str, tuple[str, ...]] = {}

    def terms(self, text: str) -> list[str]:
        """The terms of NFKC `text`, in order."""
        pattern = _ASCII if text.isascii() else self._pattern
        memo = self._memo
        found: list[str] = []
        for token in pattern.findall(text):
            terms = memo.get(token)
            if terms is None:
                terms = self._expand(token)
                if len(memo) >= MEMO_SIZE:
                    memo.clear()
                if len(token) <= MAX_LENGTH:
                    memo[token] = terms
            found.extend(terms)
        return found

    def _expand(self, token: str) -> tuple[str, ...]:
        if "." in token and _ACRONYM.fullmatch(token):
            return self._finish(token.replace(".", ""))
        token = token.replace("’", "'")
        if "'" in token:
            if token.casefold() in self._stop:  # I'll is none, ill is a word
                return ()
            token = token.removesuffix("'s").replace("'", "")
        token = token.replace(",", "")
        if "_" in token:
            name = token.strip("_")
            parts = [part for part in name.split("_") if part]
            whole = (_fold(name)[:MAX_LENGTH],) if len(parts) > 1 else ()
            return whole + tuple(term for part in parts for term in self._camel(part))
        return self._camel(token)

    def _camel(self, word: str) -> tuple[str, ...]:
        terms = self._finish(word)
        if word[1:].islower() or word.isupper() or word.islower() or len(word) > MAX_LENGTH:
            return terms
        parts = _HUMPS.findall(word)
        if len(parts) < 2 or not word.isascii() or _PLURAL_ACRONYM.fullmatch(word):
            return terms
        if not any(part.isalpha() and part.lower() != part for part in parts[1:]):
            return terms  # 'Vitamin2' has no humps
        return terms + tuple(t for part in parts if len(part) > 1 for t in self._finish(part))

    def _finish(self, word: str) -> tuple[str, ...]:
        folded = _fold(word)[:MAX_LENGTH]
        if not folded or (folded in self._stop and not _is_acronym(word)):
            return ()
        if self._stemmer is None:
            return (folded,)
        with self._stemming:
            return (self._stemmer.stemWord(folded),)


def _is_acronym(word: str) -> bool:
    """WHO, IT and US are names, though they read like stop words."""
    return len(word) > 1 and word.isupper()


def _fold(word: str) -> str:
    """Case and diacritics folded away (after Unicode casefold)."""
    folded = word.casefold()
    return folded if folded.isascii() else folded.translate(_FOLDING)

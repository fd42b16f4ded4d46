"""Korean text to morphemes, with Kiwi: what carries meaning stays, particles and endings go."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

from rag.errors import ConfigurationError
from rag.index.analysis.scripts import MAX_LENGTH, has_hangul

KEPT = frozenset(
    # nouns (common, proper, dependent), numerals, pronouns, roots; stems of verbs and adjectives,
    # of which -I and -R tell irregular from regular ones; determiners, adverbs
    ["NNG", "NNP", "NNB", "NR", "NP", "XR", "VV", "VV-I", "VV-R", "VA", "VA-I", "VA-R", "MM", "MAG"]
)
PACKAGES = ("kiwipiepy", "kiwipiepy_model")


def is_installed() -> bool:
    """Whether Kiwi can be imported; does not import it."""
    return importlib.util.find_spec("kiwipiepy") is not None


_loading = threading.Lock()


def morphemes(texts: Sequence[str]) -> list[list[str]]:
    """The Korean terms of each NFKC text, in order; nothing of other scripts.

    Only lines with Hangul are analysed. Several texts are spread over threads by Kiwi; the result
    does not depend on how many. Kiwi is loaded once in a process, at the first text with Hangul in
    it, which takes about a second. Raises ConfigurationError if it is not installed.
    """
    korean = ["\n".join(filter(has_hangul, text.splitlines())) for text in texts]
    places = [i for i, text in enumerate(korean) if text]
    found: list[list[str]] = [[] for _ in texts]
    if not places:
        return found
    with _loading:
        kiwi = _load()
    if len(places) == 1:
        found[places[0]] = _kept(kiwi.tokenize(korean[places[0]]))
        return found
    analysed = kiwi.tokenize([korean[i] for i in places])
    for place, tokens in zip(places, analysed, strict=True):
        found[place] = _kept(tokens)
    return found


@cache
def _load() -> Any:
    try:
        from kiwipiepy import Kiwi
    except ImportError:
        raise ConfigurationError(
            "Kiwi is not installed, which analyses Korean; install rag-containers[korean]"
        ) from None
    # Its dictionary of names of several words doubles the time to load, during which Python runs
    # nothing else, and found no more passages on KorQuAD.
    return Kiwi(load_multi_dict=False)


def _kept(tokens: Any) -> list[str]:
    return [
        token.form[:MAX_LENGTH] for token in tokens if token.tag in KEPT and has_hangul(token.form)
    ]

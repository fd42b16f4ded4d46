"""Text to terms: one analyzer for both sides of BM25, named, versioned and recorded.

Analyzers: 'english' (words of any script, stemmed as English), 'korean' (Hangul by Kiwi and by
bigrams), 'cjk' (Hangul by bigrams alone), 'whitespace' (a baseline), and 'auto', which is 'korean'
where Kiwi is installed and 'cjk' where not. In 'auto', 'korean' and 'cjk', text of mixed scripts
is cut run by run: Han and Kana into bigrams, the rest into words as 'english' does.

Why both for Korean: bigrams blur what morphemes tell apart, and find what an analysis misses, names
and compounds above all. Together they find more than either (tests/bench/korean.py).
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rag.errors import BundleMismatch, ConfigurationError
from rag.index.analysis import korean
from rag.index.analysis.scripts import (
    han_kana_bigrams,
    hangul_bigrams,
    has_hangul,
    normalize,
)
from rag.index.analysis.words import Words

VERSION = 2
"""Raised whenever the same name and options come to mean other terms."""
NAMES = ("auto", "english", "korean", "cjk", "whitespace")
KOREAN = ("kiwi", "bigram", "kiwi+bigram", "none")
NEED_KIWI = ("kiwi", "kiwi+bigram")
DEFAULTS = {"stemmer": "english", "stopwords": "english"}

_GOLDEN_TEXTS = (
    "The drain handler's SIGTERM: nDCG@10 of all-MiniLM-L6-v2, k1=1.5 and 1,000 read_only flags",
    "What WHO and IT do when they aren't sure: they'll ask who is ill",
    "GET /ping answers 200; the U.S.A. café's naïve ＦＵＬＬ width, C++ v2.1, HTTPServer",
    "東京タワー 漢字",
)
_GOLDEN_KOREAN = "서울에서 열린 검색 워크숍은 2024년 3월에 시작했다. 아름다운 꽃들이 피었습니다"

log = logging.getLogger(__name__)


class Analyzer:
    """Turns text into terms. Deterministic, and safe to use from several threads.

    Made by `make_analyzer` or `analyzer_from_reference`.
    """

    def __init__(self, name: str, options: Mapping[str, str]) -> None:
        self._name = name
        self._options = dict(options)
        self._korean = options.get("korean", "none")
        self._spaced_only = name not in ("english", "whitespace")
        self._hangul_seen = False
        if name != "whitespace":
            self._words = Words(
                stemmer=options["stemmer"],
                stopwords=options["stopwords"],
                spaced_only=self._spaced_only,
            )

    @property
    def name(self) -> str:
        """One of NAMES."""
        return self._name

    @property
    def options(self) -> dict[str, str]:
        """What it was made with; 'auto' has decided its `korean`."""
        return dict(self._options)

    @property
    def hangul_seen(self) -> bool:
        """Whether any text so far had Hangul in it."""
        return self._hangul_seen

    def terms(self, text: str) -> list[str]:
        """The terms of one text; a term that occurs twice is there twice. Their order says
        nothing: each script's terms come together.
        """
        return self.batch([text])[0]

    def words(self, text: str) -> list[str]:
        """The terms that are words: without the bigrams where Korean is there as morphemes too.
        For those who compare what sentences say.
        """
        if self._korean != "kiwi+bigram":
            return self.terms(text)
        normal = normalize(text)
        found = self._words.terms(normal)
        if normal.isascii():
            return found
        found.extend(han_kana_bigrams(normal))
        if has_hangul(normal):
            found.extend(korean.morphemes([normal])[0])
        return found

    def weight(self, term: str) -> float:
        """How much a term counts: half where Korean is there twice, as morphemes and as bigrams,
        so that a Korean word counts no more than an English one beside it.
        """
        return 0.5 if self._korean == "kiwi+bigram" and has_hangul(term) else 1.0

    def batch(self, texts: Sequence[str]) -> list[list[str]]:
        """The terms of each text; Korean is spread over threads."""
        normal = [normalize(text) for text in texts]
        self._hangul_seen = self._hangul_seen or any(map(has_hangul, normal))
        return self._batch(normal)

    def _batch(self, normal: list[str]) -> list[list[str]]:
        if self._name == "whitespace":
            return [text.casefold().split() for text in normal]
        found = [self._words.terms(text) for text in normal]
        if not self._spaced_only:
            return found
        other = [i for i, text in enumerate(normal) if not text.isascii()]
        for i in other:
            found[i].extend(han_kana_bigrams(normal[i]))
        hangul = [i for i in other if has_hangul(normal[i])]
        if hangul:
            for i, terms in zip(hangul, self._hangul([normal[i] for i in hangul]), strict=True):
                found[i].extend(terms)
        return found

    def reference(self, *, hangul: bool | None = None) -> dict[str, Any]:
        """What a bundle records: name, version, options, components, scripts, and goldens (pairs
        of a text and its terms) that every later analyzer must reproduce.

        `hangul` says whether the corpus has Hangul in it; None means what this analyzer has seen,
        so ask after the corpus has gone through `batch`. Without Hangul, a reader needs no Kiwi.
        """
        if hangul is None:
            hangul = self._hangul_seen
        components = {"unicode": unicodedata.unidata_version}
        if self._name != "whitespace" and self._options["stemmer"] != "none":
            components["PyStemmer"] = version("PyStemmer")
        if hangul and self._korean in NEED_KIWI:
            components |= {package: version(package) for package in korean.PACKAGES}
        texts = [*_GOLDEN_TEXTS, _GOLDEN_KOREAN] if hangul else list(_GOLDEN_TEXTS)
        terms = self._batch([normalize(text) for text in texts])
        return {
            "name": self._name,
            "version": VERSION,
            "options": dict(self._options),
            "components": components,
            "scripts": ["Hang"] if hangul else [],
            "goldens": [list(pair) for pair in zip(texts, terms, strict=True)],
        }

    def _hangul(self, texts: list[str]) -> list[list[str]]:
        match self._korean:
            case "kiwi":
                return korean.morphemes(texts)
            case "bigram":
                return [hangul_bigrams(text) for text in texts]
            case "kiwi+bigram":
                pairs = zip(korean.morphemes(texts), map(hangul_bigrams, texts), strict=True)
                return [morphemes + bigrams for morphemes, bigrams in pairs]
        return [[] for _ in texts]


def make_analyzer(name: str = "auto", **options: Any) -> Analyzer:
    """A new analyzer. Options (not of 'whitespace'): `stemmer`, a Snowball algorithm or 'none';
    `stopwords`, 'english', 'lucene' or 'none'; for 'auto' also `korean`, one of KOREAN.

    Raises ConfigurationError for a name or option that does not exist, and for Kiwi asked for by
    name but not installed. 'auto' without Kiwi logs one warning and takes bigrams.
    """
    if name not in NAMES:
        raise ConfigurationError(f"unknown analyzer '{name}'; use one of {', '.join(NAMES)}")
    chosen: dict[str, Any] = {} if name == "whitespace" else dict(DEFAULTS)
    if name in ("auto", "korean", "cjk"):
        chosen["korean"] = {"korean": "kiwi+bigram", "cjk": "bigram"}.get(
            name, options.get("korean")
        )
    known = set(chosen) - ({"korean"} if name != "auto" else set())
    for option in options:
        if option not in known:
            raise ConfigurationError(
                f"analyzer '{name}' has no option '{option}' (known: {', '.join(sorted(known))})"
            )
    chosen |= options
    if "korean" in chosen:
        chosen["korean"] = _resolve_korean(chosen["korean"])
    return Analyzer(name, chosen)


def analyzer_from_reference(reference: Mapping[str, Any]) -> Analyzer:
    """The analyzer that a bundle's reference describes, checked against its goldens.

    Where the corpus has no Hangul (`scripts`), Hangul in queries is passed over, and Kiwi is
    neither needed nor loaded. Raises BundleMismatch if this program cannot make the same terms.
    """
    name, options = reference["name"], dict(reference["options"])
    if name not in NAMES or reference["version"] != VERSION:
        raise BundleMismatch(
            f"the bundle's analyzer is {name} version {reference['version']}, this program has"
            f" {', '.join(NAMES)} of version {VERSION}; build the bundle again, or take the program"
            " that built it"
        )
    if "korean" in options and "Hang" not in reference["scripts"]:
        options["korean"] = "none"
    if options.get("korean") in NEED_KIWI and not korean.is_installed():
        raise BundleMismatch(
            "the bundle's Korean terms were made by Kiwi, which is not installed; install"
            " rag-containers[korean]"
        )
    try:
        analyzer = Analyzer(name, options)
    except (ConfigurationError, KeyError) as error:
        raise BundleMismatch(f"the bundle's analyzer cannot be made here: {error}") from None
    goldens = reference["goldens"]
    for (text, expected), terms in zip(
        goldens, analyzer._batch([normalize(text) for text, _ in goldens]), strict=True
    ):
        if terms != expected:
            raise BundleMismatch(
                f"the analyzer gives other terms than the one that built the bundle for '{text}'"
                f" ({_difference(expected, terms)}); {_versions(reference['components'])}"
            )
    return analyzer


def _resolve_korean(wanted: str | None) -> str:
    if wanted is None:
        if korean.is_installed():
            return "kiwi+bigram"
        log.warning(
            "Kiwi is not installed: Korean is cut into bigrams, which finds less; install"
            " rag-containers[korean] for morphemes"
        )
        return "bigram"
    if wanted not in KOREAN:
        raise ConfigurationError(f"unknown korean '{wanted}'; use one of {', '.join(KOREAN)}")
    if wanted in NEED_KIWI and not korean.is_installed():
        raise ConfigurationError("Kiwi is not installed; install rag-containers[korean]")
    return wanted


def _difference(expected: Sequence[str], terms: Sequence[str]) -> str:
    missing = [term for term in expected if term not in terms]
    added = [term for term in terms if term not in expected]
    return f"missing {missing}, added {added}"


def _versions(components: Mapping[str, str]) -> str:
    """One clause that names the components whose versions differ, and what to do."""
    here: dict[str, str] = {"unicode": unicodedata.unidata_version}
    for package in set(components) - {"unicode"}:
        try:
            here[package] = version(package)
        except PackageNotFoundError:
            here[package] = "none"
    changed = [
        f"{name} {then}, here {here[name]}"
        for name, then in sorted(components.items())
        if here[name] != then
    ]
    return f"it had {'; '.join(changed) or 'the same components'}: install those or build it again"

"""Which language a document is in: what it declares, checked against the script it is written in.

A small heuristic, by design without a model. A script that one language has to itself decides
(Hangul is Korean, kana Japanese); Latin text is English when English function words make up a
good part of it, else 'und'.
"""

from __future__ import annotations

import re

_SAMPLE = 50_000  # characters looked at; a document's language shows long before
_MIN_LETTERS = 3
_MIN_ENGLISH_WORDS = 0.15  # share of function words among the words of English prose: 0.3 to 0.5

_SCRIPTS = {
    "latin": re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]+"),
    "hangul": re.compile("[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]+"),
    "kana": re.compile("[\u3041-\u3096\u30a1-\u30fa]+"),
    "han": re.compile("[\u3400-\u4dbf\u4e00-\u9fff]+"),
    "cyrillic": re.compile("[\u0400-\u04ff]+"),
    "arabic": re.compile("[\u0620-\u06ff]+"),
    "hebrew": re.compile("[\u05d0-\u05ea]+"),
    "greek": re.compile("[\u0386-\u03ff\u1f00-\u1fff]+"),
    "thai": re.compile("[\u0e01-\u0e4f]+"),
    "devanagari": re.compile("[\u0900-\u097f]+"),
}
# A syllable or an ideograph says as much as this many letters.
_WEIGHT = {"hangul": 2.5, "kana": 2.0, "han": 3.0}
# The languages that a script is used for; the first is the one assumed.
_LANGUAGES = {
    "hangul": ("ko",),
    "kana": ("ja",),
    "han": ("zh", "ja"),
    "cyrillic": ("ru", "uk", "bg", "sr", "mk", "be", "kk", "ky", "mn", "tg"),
    "arabic": ("ar", "fa", "ur", "ps", "ug", "sd", "ku"),
    "hebrew": ("he", "yi"),
    "greek": ("el",),
    "thai": ("th",),
    "devanagari": ("hi", "mr", "ne", "sa"),
}
_UKRAINIAN = re.compile("[іїєґІЇЄҐ]")
_PERSIAN = re.compile("[پچژگ]")
_WORD = re.compile("[a-z\u00df-\u024f]+")
_ENGLISH_WORDS = (
    "the of and to in is that for it as was with be by on not he his are this at from or "
    "have an they which one you were all their there been has when who will no more if can "
    "so its your we our do how what but had would than these those i"
)
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
_THREE_LETTERS = {
    "ara": "ar", "chi": "zh", "deu": "de", "ell": "el", "eng": "en", "fra": "fr", "fre": "fr",
    "ger": "de", "heb": "he", "hin": "hi", "ita": "it", "jpn": "ja", "kor": "ko", "nld": "nl",
    "pol": "pl", "por": "pt", "rus": "ru", "spa": "es", "tha": "th", "ukr": "uk", "zho": "zh",
}  # fmt: skip


def document_language(declared: str | None, text: str) -> str:
    """ISO 639-1 code or 'und'. A declaration that the script refutes is not believed.

    Page templates say `lang="en"` above Korean text all the time; and what is declared Korean but
    holds no Hangul is not.
    """
    code = language_code(declared)
    counts = _script_counts(text)
    if code is None or sum(counts.values()) < _MIN_LETTERS:
        return code or _detect(counts, text)
    if own := _own_scripts(code):
        # In mixed text the other script may be names, quotes and terms.
        believed = sum(counts.get(script, 0) for script in own) > 0.1 * sum(counts.values())
    else:
        believed = _dominant(counts) == "latin"
    return code if believed else _detect(counts, text)


def language_code(declared: str | None) -> str | None:
    """The two-letter primary subtag of a language tag ('ko-KR', 'en_US', 'kor'), or None."""
    primary = re.split("[-_.@,; ]", (declared or "").strip().lower(), maxsplit=1)[0]
    primary = _THREE_LETTERS.get(primary, primary)
    return primary if re.fullmatch("[a-z]{2}", primary) else None


def _own_scripts(code: str) -> list[str]:
    return [script for script, codes in _LANGUAGES.items() if code in codes]


def _script_counts(text: str) -> dict[str, float]:
    sample = text[:_SAMPLE]
    scripts = {"latin": _SCRIPTS["latin"]} if sample.isascii() else _SCRIPTS
    counts = {
        name: sum(map(len, runs.findall(sample))) * _WEIGHT.get(name, 1)
        for name, runs in scripts.items()
    }
    return {name: count for name, count in counts.items() if count}


def _dominant(counts: dict[str, float]) -> str:
    """The script with most letters. Latin is in every text, so it needs three quarters; and the
    Chinese characters of a text with kana are Japanese.
    """
    total = sum(counts.values())
    others = {name: count for name, count in counts.items() if name != "latin"}
    if not others or counts.get("latin", 0.0) > 0.75 * total:
        return "latin"
    if others.get("kana", 0.0) > 0.05 * (others.get("kana", 0.0) + others.get("han", 0.0)):
        others["kana"] = others.get("kana", 0.0) + others.pop("han", 0.0)
    return max(others, key=lambda name: (others[name], name))


def _detect(counts: dict[str, float], text: str) -> str:
    if not counts:
        return "und"
    script = _dominant(counts)
    if script == "cyrillic" and _UKRAINIAN.search(text[:_SAMPLE]):
        return "uk"
    if script == "arabic" and _PERSIAN.search(text[:_SAMPLE]):
        return "fa"
    if script != "latin":
        return _LANGUAGES[script][0]
    words = _WORD.findall(text[:_SAMPLE].lower())
    english = sum(map(_ENGLISH.__contains__, words))
    return "en" if words and english >= _MIN_ENGLISH_WORDS * len(words) else "und"

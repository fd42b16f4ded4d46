"""Queries out of what a generator said: whatever it was, only clean text is searched for."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

import orjson

from rag.models.abstention import question_language

MAX_QUERY_CHARS = 2000
"""Longest question that is expanded, and longest query that is read out of a reply."""
MAX_PASSAGE_CHARS = 1500
"""What is kept of a hypothetical passage: more than encoders read."""

_SHORT_QUERY_CHARS = 300  # a query may be this long, or twice its question
_NON_LATIN_SHARE = 0.25  # of the letters; Latin names stand in texts of every script
_THINKING = re.compile(r"\A\s*<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL)
_FENCE = re.compile(r"\A```[\w-]*\n(.*?)\n?```\Z", re.DOTALL)
_BULLET = re.compile(r"\A(?:[-*•·–]\s+|\(?\d{1,2}[.):]\s+|\[\d{1,2}\]\s*)")
_LABEL = re.compile(
    r"\A(?:(?:stand-?alone|rewritten|search|sub)[- ]?)*(?:query|question|passage|질문|검색어|문단)"
    r"\s*\d{0,2}\s*[:：]\s*",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "「": "」", "『": "』", "«": "»"}
_JSON_DEBRIS = re.compile(r"\A(?:[{}\[\]]|\"queries\"\s*:)")


def read_queries(reply: str, question: str, most: int) -> list[str] | None:
    """The distinct queries of a reply, at most `most`, without the question itself.

    A reply is one query a line (bullets, labels and quotes are taken off; a line that ends with
    a colon introduces the others) or JSON: a list of strings, or `{"queries": [...]}`. A query
    that is too long, has no letter or digit, or is not in the question's language (see
    `keeps_language`) is left out. None where nothing can be used; an empty list where the reply
    only repeats the question.
    """
    longest = min(MAX_QUERY_CHARS, max(_SHORT_QUERY_CHARS, 2 * len(question)))
    found: dict[str, str] = {}
    repeated = False
    for said in _items(_bare(reply)):
        query = _unwrapped(said)
        key = _key(query)
        if not key or len(query) > longest or not keeps_language(question, query):
            continue
        if key == _key(question):
            repeated = True
        else:
            found.setdefault(key, query)
    if not found and not repeated:
        return None
    return list(found.values())[:most]


def read_passage(reply: str, question: str) -> str | None:
    """A hypothetical passage: the whole reply as one paragraph, cut after a word.

    None where nothing is left, or it is not in the question's language.
    """
    text = _unwrapped(_bare(reply))
    if len(text) > MAX_PASSAGE_CHARS:
        text = text[:MAX_PASSAGE_CHARS].rpartition(" ")[0] or text[:MAX_PASSAGE_CHARS]
    return text if _key(text) and keeps_language(question, text) else None


def keeps_language(question: str, text: str) -> bool:
    """Whether `text` is written as `question` is, judged by script.

    A question in a script of its own (Hangul, Han and Kana, Cyrillic …) wants some of it in the
    text; a question in Latin script wants a text in Latin script. Languages that share a script
    are not told apart.
    """
    script = _main_script(question)
    if script is None:
        return True
    return _main_script(text) == script if script == "LATIN" else script in _scripts(text)


def _main_script(text: str) -> str | None:
    """The script that tells the language of `text`; None without letters."""
    counts = _scripts(text)
    if not counts:
        return None
    if "HANGUL" in counts:  # one Korean word among English names makes a Korean question
        if question_language(text) == "ko":
            return "HANGUL"
        return "LATIN"
    script, count = max(counts.items(), key=lambda item: (item[0] != "LATIN", item[1]))
    return script if count >= _NON_LATIN_SHARE * counts.total() else "LATIN"


def _scripts(text: str) -> Counter[str]:
    """How many letters of each script `text` has; Han and Kana are one."""
    names = (unicodedata.name(c, "").partition(" ")[0] for c in text if c.isalpha())
    one = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "FULLWIDTH": "LATIN"}
    return Counter(one.get(name, name) for name in names)


def _bare(reply: str) -> str:
    """The reply without a reasoning model's thoughts and without a code fence around it."""
    text = _THINKING.sub("", reply).strip()
    fenced = _FENCE.match(text)
    return fenced[1].strip() if fenced else text


def _items(text: str) -> Iterator[str]:
    """What stands for a query in a reply, as it was written."""
    if text[:1] in ("[", "{"):
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
        else:
            queries = value.get("queries") if isinstance(value, dict) else value
            if isinstance(queries, list):
                yield from (query for query in queries if isinstance(query, str))
            return
    for line in text.splitlines():
        said = _BULLET.sub("", line.strip()).removesuffix(",")
        if not said.endswith((":", "：")) and not _JSON_DEBRIS.search(said):
            yield said


def _unwrapped(said: str) -> str:
    """One line of clean text, without bullet, label and quotes; NFC."""
    text = _clean(said)
    text = _LABEL.sub("", _BULLET.sub("", text)).strip("* ")
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text


def _clean(text: str) -> str:
    """NFC, on one line, without control characters, lone surrogates and private characters."""
    dropped = ("Cc", "Cs", "Co", "Cn")
    kept = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in dropped)
    return " ".join(unicodedata.normalize("NFC", kept).split())


def _key(query: str) -> str:
    """Letters and digits alone: two queries with the same ones are one."""
    return "".join(c for c in query.casefold() if c.isalnum())

"""Scores of one answer against its gold: exact match, F1, citations, unsupported sentences.

Two ways to compare words, by the language of the question:

- words (English and other languages with spaces): SQuAD's. Lower case, no punctuation, no articles
  (a, an, the). Rajpurkar et al., EMNLP 2016.
- characters (Korean, Japanese, Chinese): KorQuAD's. Lower case, no punctuation, and F1 over the
  characters that are left, so that a particle at the end of a word costs one character and not the
  word. Lim, Kim and Lee, KorQuAD 1.0, arXiv:1909.07005, 2019.

Both: P = common / said, R = common / gold, F1 = 2·P·R / (P + R), where `common` counts a word (or a
character) as often as both have it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from rag.answering.citations import without_markers
from rag.sentences import split_sentences
from rag.types import Citation

CHARACTER_LANGUAGES = frozenset({"ko", "ja", "zh"})
"""Languages whose answers are compared by characters."""
_ARTICLES = frozenset({"a", "an", "the"})
_ASCII_MARKS = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t]*\1[^\n]*$|\Z)", re.M | re.S)


def exact_match(answer: str, golds: Sequence[str], lang: str) -> float:
    """1 if the answer is one of `golds` after normalisation, else 0."""
    said = _normalised(answer, lang)
    return float(any(said == _normalised(gold, lang) for gold in golds))


def token_f1(answer: str, golds: Sequence[str], lang: str) -> float:
    """The best F1 over `golds`, from 0 to 1; see the top of this file. 1 if both are empty."""
    return max(_f1(_units(answer, lang), _units(gold, lang)) for gold in golds)


def contains_gold(answer: str, golds: Sequence[str], lang: str) -> float:
    """1 if the answer has a gold answer in it, in one piece and after normalisation, else 0.

    Whole words; in character languages whole numbers, whatever the spaces.
    """
    said = _normalised(answer, lang)
    return float(any(_is_inside(_normalised(gold, lang), said, lang) for gold in golds))


def citation_scores(
    cited: Collection[str], judged: Mapping[str, int]
) -> tuple[float | None, float | None]:
    """(precision, recall) of the documents that an answer cites against their grades.

    Precision: the share of cited documents that are relevant (grade above 0); None where nothing
    is cited. Recall: the share of gold documents, those of the highest grade, that are cited; None
    where nothing is relevant. Each document counts once, however often it is cited.
    """
    documents = set(cited)
    relevant = {doc_id for doc_id, grade in judged.items() if grade > 0}
    best = max(judged.values(), default=0)
    gold = {doc_id for doc_id in relevant if judged[doc_id] == best}
    precision = len(documents & relevant) / len(documents) if documents else None
    recall = len(documents & gold) / len(gold) if gold else None
    return precision, recall


def unsupported_share(answer: str, citations: Sequence[Citation]) -> float | None:
    """The share of an answer's sentences that cite nothing, or nothing that bears them out.

    A block of code is one sentence; what holds no letter or digit is none. A sentence whose
    support was not checked counts as supported. None where there is no sentence.
    """
    sentences = _sentences(answer)
    if not sentences:
        return None
    supported = sum(
        any(c.supported is not False and c.start < end and start < c.end for c in citations)
        for start, end in sentences
    )
    return 1.0 - supported / len(sentences)


def _sentences(answer: str) -> list[tuple[int, int]]:
    blocks = [match.span() for match in _FENCE.finditer(answer)]
    inside = [
        (start, end)
        for start, end in split_sentences(answer)
        if not any(a <= start < b for a, b in blocks)
    ]
    return [
        (start, end)
        for start, end in sorted(inside + blocks)
        if any(c.isalnum() for c in without_markers(answer[start:end]))
    ]


def _normalised(text: str, lang: str) -> str:
    """NFC, lower case, punctuation taken out, one space between words; without articles where
    words are compared.
    """
    kept = "".join(c for c in unicodedata.normalize("NFC", text).lower() if not _is_mark(c))
    words = kept.split()
    if lang not in CHARACTER_LANGUAGES:
        words = [word for word in words if word not in _ARTICLES]
    return " ".join(words)


def _is_mark(character: str) -> bool:
    return character in _ASCII_MARKS or unicodedata.category(character).startswith("P")


def _units(text: str, lang: str) -> list[str]:
    """What F1 counts: words, or characters without spaces."""
    words = _normalised(text, lang).split()
    return list("".join(words)) if lang in CHARACTER_LANGUAGES else words


def _f1(said: Sequence[str], gold: Sequence[str]) -> float:
    if not said or not gold:
        return float(not said and not gold)
    common = (Counter(said) & Counter(gold)).total()
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def _is_inside(gold: str, said: str, lang: str) -> bool:
    if not gold:
        return not said
    if lang not in CHARACTER_LANGUAGES:
        return f" {gold} " in f" {said} "
    wanted = re.escape(gold.replace(" ", ""))
    before = r"(?<!\d)" if gold[0].isdigit() else ""
    after = r"(?!\d)" if gold[-1].isdigit() else ""
    return re.search(f"{before}{wanted}{after}", said.replace(" ", "")) is not None

"""Whether the passages bear out what an answer says, sentence by sentence.

A sentence is supported by the passages it cites, or, where it cites none, by any one of those the
generator was given. Two signs: the share of its terms that stand there, and how near the encoder
finds it to a sentence there. Numbers must stand there whatever the signs say. The thresholds are
those of tests/bench/support.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rag.answering.citations import without_markers
from rag.models.embedder import Embedder
from rag.sentences import split_sentences
from rag.types import Citation, Float32, Passage

Terms = Callable[[str], list[str]]

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_MOST_SENTENCES = 64  # of one passage that are compared by the encoder


@dataclass(frozen=True, slots=True)
class SupportOptions:
    """From `enough` of a sentence's terms on, terms alone decide; from `some` on, the sentence
    must also be as near as `near`, a cosine, to one of the passages'. The encoder is asked only
    about sentences of which it can read at least `readable`.
    """

    enough: float = 0.5
    some: float = 0.3
    near: float = 0.6
    readable: float = 0.8


class Support:
    """Checks against passages with a bundle's analyzer, and its encoder if there is one."""

    def __init__(
        self,
        terms: Terms,
        embedder: Embedder | None = None,
        options: SupportOptions | None = None,
    ) -> None:
        self._terms = terms
        self._embedder = embedder
        self._options = options or SupportOptions()

    def check(
        self, answer: str, citations: Sequence[Citation], passages: Sequence[Passage]
    ) -> list[Citation]:
        """The citations with `supported` filled in; None for a sentence without terms.

        `answer[start:end]` is a citation's sentence. Blocks where the encoder has to be asked.
        """
        evidence = {passage.rank: _Evidence(passage, self._terms) for passage in passages}
        return [
            replace(citation, supported=self._supported(answer, citation, evidence))
            for citation in citations
        ]

    def signs(self, sentence: str, passages: Sequence[Passage]) -> tuple[float, float | None, bool]:
        """(share of terms, highest cosine or None, whether all numbers are there) of a sentence
        against all of `passages` together.
        """
        evidence = [_Evidence(passage, self._terms) for passage in passages]
        said = set(self._terms(sentence))
        share = _share(said, evidence)
        return share, self._cosine(sentence, evidence), _has_numbers(sentence, evidence)

    def _supported(
        self, answer: str, citation: Citation, evidence: dict[int, _Evidence]
    ) -> bool | None:
        sentence = without_markers(answer[citation.start : citation.end])
        said = set(self._terms(sentence))
        if not said:
            return None
        cited = [evidence[rank] for rank in citation.passages if rank in evidence]
        groups = [cited] if citation.passages else [[one] for one in evidence.values()]
        return any(self._bears_out(sentence, said, group) for group in groups if group)

    def _bears_out(self, sentence: str, said: set[str], evidence: Sequence[_Evidence]) -> bool:
        share = _share(said, evidence)
        if share < self._options.some or not _has_numbers(sentence, evidence):
            return False
        if share >= self._options.enough:
            return True
        cosine = self._cosine(sentence, evidence)
        return cosine is not None and cosine >= self._options.near

    def _cosine(self, sentence: str, evidence: Sequence[_Evidence]) -> float | None:
        """The highest with a sentence of the evidence; None where the encoder cannot tell."""
        if self._embedder is None:
            return None
        if float(self._embedder.readable([sentence])[0]) < self._options.readable:
            return None
        own = self._embedder.embed_passages([sentence])[0]
        return max(float(np.max(one.vectors(self._embedder) @ own)) for one in evidence)


class _Evidence:
    """One passage: its terms and numbers, and its sentences' vectors once they are asked for."""

    def __init__(self, passage: Passage, terms: Terms) -> None:
        text = passage.chunk.indexed_text
        self.terms = frozenset(terms(text))
        self.numbers = _numbers(text)
        self._text = passage.chunk.text
        self._vectors: Float32 | None = None

    def vectors(self, embedder: Embedder) -> Float32:
        if self._vectors is None:
            spans = split_sentences(self._text)[:_MOST_SENTENCES] or [(0, len(self._text))]
            self._vectors = embedder.embed_passages([self._text[a:b] for a, b in spans])
        return self._vectors


def _share(said: set[str], evidence: Sequence[_Evidence]) -> float:
    there: set[str] = set().union(*(one.terms for one in evidence))
    return len(said & there) / len(said) if said else 0.0


def _has_numbers(sentence: str, evidence: Sequence[_Evidence]) -> bool:
    return _numbers(sentence) <= set().union(*(one.numbers for one in evidence))


def _numbers(text: str) -> set[str]:
    return {m.group().replace(",", "") for m in _NUMBER.finditer(text)}

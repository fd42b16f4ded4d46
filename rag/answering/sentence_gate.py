"""A streaming answer held back sentence by sentence, so that some of them can be left out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from rag.answering.citations import parse_citations
from rag.types import Citation


class SentenceGate:
    """Cuts text that comes in pieces into sentences, each with its markers and what follows.

    `feed` and `flush` give (text, citation) pairs; together the texts are all that was fed. The
    citation's span lies within its text; None for text that claims nothing, such as code.
    """

    def __init__(self, ranks: Collection[int]) -> None:
        self._ranks = ranks
        self._held = ""

    def feed(self, piece: str) -> list[tuple[str, Citation | None]]:
        """The sentences that are whole now: those before the last one that has begun."""
        self._held += piece
        if not any(c in piece for c in ".!?。！？…\n다요"):
            return []
        return self._take(whole=False)

    def flush(self) -> list[tuple[str, Citation | None]]:
        """What is left at the end."""
        return self._take(whole=True)

    def _take(self, *, whole: bool) -> list[tuple[str, Citation | None]]:
        found = parse_citations(self._held, self._ranks, uncited=True)
        if not found:
            if not whole or not self._held:
                return []
            text, self._held = self._held, ""
            return [(text, None)]
        ready = len(found) if whole else len(found) - 1
        cuts = [0, *(citation.start for citation in found[1:])]
        cuts = [*cuts[:ready], len(self._held) if whole else cuts[ready]]
        parts: list[tuple[str, Citation | None]] = [
            (
                self._held[start:stop],
                replace(citation, start=citation.start - start, end=citation.end - start),
            )
            for start, stop, citation in zip(cuts, cuts[1:], found, strict=False)
        ]
        self._held = self._held[cuts[-1] :]
        return parts

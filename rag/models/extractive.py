"""The embedded generator: answers with sentences of the passages. No endpoint, no network."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from rag.errors import GeneratorTimeout
from rag.models.abstention import abstention
from rag.models.generator import Delta, Prompt
from rag.models.selection import Selected, Selection, SelectionOptions, select
from rag.models.unit_scores import Terms
from rag.types import Float32

Embed = Callable[[Sequence[str]], Float32]

_CLOSED = re.compile(r"[.!?。！？…][\"'”’)\]」』`]*$")


class ExtractiveGenerator:
    """Quotes the one to few sentences that answer the question, each with its citation.

    `terms` is the bundle's analyzer. `embed` and `embed_query` are an encoder's
    `embed_passages` and `embed_queries`; without them, and for languages the encoder does not
    know, terms alone decide. It reads `Prompt.query` and `Prompt.passages`, never the messages.
    Where the passages do not answer, the whole answer is the abstention sentence.
    """

    name = "extractive"

    def __init__(
        self,
        terms: Terms,
        embed: Embed | None = None,
        embed_query: Embed | None = None,
        *,
        options: SelectionOptions | None = None,
    ) -> None:
        self._terms = terms
        self._embed = embed
        self._embed_query = embed_query
        self._options = options or SelectionOptions()

    async def stream(self, prompt: Prompt, *, deadline: float) -> AsyncIterator[Delta]:
        """One delta a sentence or line. Raises GeneratorTimeout at `deadline`."""
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                selection = await asyncio.to_thread(self.select, prompt)
        except TimeoutError as error:
            raise GeneratorTimeout(
                "extractive generator had not finished at the deadline: raise the deadline or "
                "ask for fewer passages"
            ) from error
        for text in answer_lines(prompt.query, selection):
            yield Delta(text)

    async def aclose(self) -> None:
        """There is nothing to close."""

    def select(self, prompt: Prompt) -> Selection:
        """What is quoted for this prompt; runs in the caller's thread."""
        has_encoder = self._embed is not None and self._embed_query is not None
        return select(
            prompt.query,
            prompt.passages,
            terms=self._terms,
            similarity=self._similarity if has_encoder else None,
            options=self._options,
        )

    def _similarity(self, question: str, texts: Sequence[str]) -> Sequence[float]:
        if self._embed is None or self._embed_query is None:
            raise ValueError("similarity was asked for without an encoder; pass embed functions")
        cosines = self._embed(texts) @ self._embed_query([question])[0]
        return [float(cosine) for cosine in cosines]


def answer_lines(question: str, selection: Selection) -> Iterator[str]:
    """The pieces of text that together are the answer, cited."""
    if not selection.pieces:
        yield abstention(question)
        return
    separator = ""
    for piece in selection.pieces:
        lines = list(_cited(piece))
        block = len(lines) > 1
        yield ("\n" if separator and block else separator) + lines[0]
        for line in lines[1:]:
            yield f"\n{line}"
        closed = len(lines) == 1 and _CLOSED.search(piece.lines[0])
        separator = " " if closed else "\n"


def _cited(piece: Selected) -> Iterator[str]:
    marks = "".join(f"[{rank}]" for rank in piece.ranks)
    for line in piece.lines:
        if line.endswith("```"):
            yield f"{line}\n{marks}"
        else:
            yield line if line.endswith((":", "：")) else f"{line} {marks}"

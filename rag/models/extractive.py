"""The embedded generator: answers with sentences of the passages. No endpoint, no network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from rag.errors import GeneratorTimeout
from rag.models.abstention import abstention
from rag.models.generator import Delta, Prompt
from rag.models.passage_units import Unit, UnitKind
from rag.models.question import Terms
from rag.models.selection import Quoted, Selection, SelectionOptions, select
from rag.types import Float32

Embed = Callable[[Sequence[str]], Float32]


class ExtractiveGenerator:
    """Quotes the few sentences that answer the question, each with its citation.

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
        for text in answer_pieces(prompt.query, selection):
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


def answer_pieces(question: str, selection: Selection) -> Iterator[str]:
    """The pieces of text that together are the answer: a sentence or line each, cited."""
    if not selection.runs:
        yield abstention(question)
        return
    before: Quoted | None = None
    for run in selection.runs:
        is_list = len(run) > 1
        for quoted in run:
            gap = "" if before is None else _gap(before.unit, quoted.unit)
            yield gap + _cited(quoted, is_list)
            before = quoted


def _gap(before: Unit, unit: Unit) -> str:
    """Closed sentences stand side by side; everything else on lines of its own."""
    prose = {UnitKind.PROSE} == {before.kind, unit.kind}
    inside_item = before.kind is UnitKind.ITEM and not unit.starts_line
    joined = (prose or inside_item) and before.is_closed
    return " " if joined else "\n"


def _cited(quoted: Quoted, is_list: bool) -> str:
    unit = quoted.unit
    text = unit.text
    marks = "".join(f"[{rank}]" for rank in quoted.ranks)
    if unit.kind is UnitKind.CODE and "\n" in text:
        return f"```\n{text}\n```\n{marks}"
    if unit.kind is UnitKind.CODE:
        text = f"`{text.strip('`')}`"
    elif unit.kind in (UnitKind.ITEM, UnitKind.ROW) and is_list:
        text = f"{unit.number}. {text}" if unit.is_numbered else f"- {text}"
    elif unit.kind is UnitKind.HEADING:
        text = f"**{text}**"
    return f"{text} {marks}"

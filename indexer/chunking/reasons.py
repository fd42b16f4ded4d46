"""Why a document was cut where it was, told from the cut alone."""

from __future__ import annotations

from bisect import bisect_right

from indexer.chunking import cutting
from indexer.chunking.sections import Part
from rag.sentences import split_sentences
from rag.types import BlockKind, Document

_NAMES = {
    cutting._ITEM: "between items",
    cutting._ROW: "between rows",
    cutting._BLANK_LINE: "at a blank line",
    cutting._LINE: "between lines",
    cutting._CELL: "between cells",
    cutting._FULL_STOP: "after a full stop",
    cutting._CLAUSE: "between clauses",
    cutting._SPACE: "between words",
}


def why(document: Document, parts: list[Part], end: int) -> str:
    """Why the chunk that ends at `end` ends there; `parts` are those the document was cut into."""
    last = document.text[end:].strip() == ""
    part = next((p for p in parts if p.starts[0] < end <= p.ends[-1]), None)
    if part is None:
        return "the document ends" if last else "the section ends"
    if end == part.ends[-1]:
        return "the document ends" if last else "the section ends"
    number = bisect_right(part.starts, end - 1) - 1
    block = part.blocks[number]
    if end == block.end:
        following = part.blocks[number + 1].kind
        return f"the limit is near: between a {_say(block.kind)} and a {_say(following)}"
    begin = end + len(document.text[end:]) - len(document.text[end:].lstrip())
    return f"the limit is near: inside a {_say(block.kind)}, {_how(document, part, number, begin)}"


def _how(document: Document, part: Part, number: int, begin: int) -> str:
    """The best kind of boundary at `begin`, where the next chunk's text goes on."""
    block = part.blocks[number]
    inside = document.text[block.start : block.end]
    for level in cutting._LEVELS[block.kind]:
        if isinstance(level, str):
            if any(start == begin - block.start for start, _ in split_sentences(inside)):
                return "between sentences"
        elif any(_skip(inside, m.end()) == begin - block.start for m in level.finditer(inside)):
            return _NAMES[level]
    return "inside a word"


def _skip(text: str, position: int) -> int:
    return position + len(text[position:]) - len(text[position:].lstrip())


def _say(kind: BlockKind) -> str:
    return {BlockKind.CODE: "code block"}.get(kind, kind.value)

"""What every parsed document must hold, whatever its format."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from rag.types import BlockKind, Document

_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff]")
_LANG = re.compile("[a-z]{2}|und")


def check_document(document: Document) -> None:
    """Fails with the first promise of `rag.types.Document` that is not kept."""
    text = document.text
    assert text.strip(), "no text"
    assert unicodedata.is_normalized("NFC", text), "text is not NFC"
    assert not _FORBIDDEN.search(text), f"control character {_FORBIDDEN.search(text)}"
    _check_blocks(document)
    assert document.title
    assert document.title == document.title.strip(), "spaces around the title"
    assert "\n" not in document.title
    assert unicodedata.is_normalized("NFC", document.title)
    assert _LANG.fullmatch(document.lang), document.lang
    assert document.format
    _check_metadata(document)


def _check_blocks(document: Document) -> None:
    text, blocks = document.text, document.blocks
    assert blocks, "no blocks"
    end = 0
    for block in blocks:
        assert end <= block.start, "blocks overlap"
        assert block.start < block.end <= len(text), "an empty block, or one beyond the text"
        assert not text[end : block.start].strip(), f"text between blocks before {block.start}"
        assert text[block.start : block.end].strip(), "blank block"
        end = block.end
        if block.kind is BlockKind.HEADING:
            assert 1 <= block.level <= 6
            assert "\n" not in text[block.start : block.end]
        else:
            assert block.level == 0
        assert block.page is None or block.page >= 1
    assert not text[end:].strip(), "text after the last block"
    pages = [block.page for block in blocks if block.page is not None]
    assert all(a <= b for a, b in pairwise(pages)), "pages go backwards"
    for block in blocks:
        if block.kind is BlockKind.TABLE:
            _check_table(text[block.start : block.end])
            if block.header_end is not None:
                assert block.start < block.header_end
                assert block.header_end < block.end
                assert text[block.header_end] == "\n", "the header ends within a row"
        else:
            assert block.header_end is None


def _check_table(table: str) -> None:
    widths = set()
    for row in table.split("\n"):
        assert row.startswith("| ") or row.startswith("|---|"), f"no row: {row!r}"
        assert row.endswith("|"), f"no row: {row!r}"
        widths.add(len(re.findall(r"(?<!\\)\|", row)))
    assert len(widths) == 1, f"rows of unequal width: {widths}"


def _check_metadata(document: Document) -> None:
    for key, value in document.metadata.items():
        assert isinstance(key, str)
        items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        assert all(isinstance(item, str | int | float | bool) for item in items), (key, value)
    json.dumps(dict(document.metadata), allow_nan=False)

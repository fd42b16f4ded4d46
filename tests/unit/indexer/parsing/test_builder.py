from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from indexer.parsing import builder as builder_module
from indexer.parsing.builder import DocumentBuilder
from rag.errors import UnreadableDocument
from rag.types import BlockKind, Document


def build(builder: DocumentBuilder, **extra: Any) -> Document:
    return builder.build(doc_id="a/file.x", uri="u", format_name="x", extra=extra or None)


def test_offsets_point_at_the_blocks(check_document: Callable[[Document], None]) -> None:
    b = DocumentBuilder()
    b.heading("제목\n하나", 1, page=1)
    b.paragraph("  줄 하나 \r\n\r\n줄   둘  ", page=1)
    b.list_item("하나")
    b.list_item("둘\n계속", 1, "1.")
    b.list_item("더", 1, None)
    b.end_list()
    b.list_item("다른 목록")
    b.code("\n  if x:\n\ty\n\n", page=2)
    document = build(b)
    check_document(document)
    texts = [document.text[k.start : k.end] for k in document.blocks]
    assert texts == [
        "제목 하나",
        "줄 하나\n줄 둘",
        "- 하나\n  1. 둘\n    계속\n    더",
        "- 다른 목록",
        "  if x:\n\ty",
    ]
    assert document.text == "\n\n".join(texts)
    assert [k.page for k in document.blocks] == [1, 1, None, None, 2]


def test_table_has_a_header_that_can_be_repeated() -> None:
    b = DocumentBuilder()
    b.table([["", "이름", "", "값"], ["", "a|b", "", "1"], ["", "", "", ""], ["", "c"]], 1)
    document = build(b)
    table = document.blocks[0]
    assert document.text == "| 이름 | 값 |\n|---|---|\n| a\\|b | 1 |\n| c |  |"
    assert document.text[table.start : table.header_end] == "| 이름 | 값 |"


def test_table_without_rows_below_has_no_header() -> None:
    b = DocumentBuilder()
    b.table([["a", "b"]], 1)
    assert build(b).blocks[0].header_end is None


def test_blank_header_rows_do_not_make_data_a_header() -> None:
    b = DocumentBuilder()
    b.table([["", ""], [" ", ""], ["1", "2"], ["3", "4"]], 2)
    assert build(b).blocks[0].header_end is None


def test_a_table_beyond_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder_module, "MAX_CELLS", 5)
    with pytest.raises(UnreadableDocument, match="split it"):
        DocumentBuilder().table([["a", "b"], ["c", "d"], ["e", "f"]])
    with pytest.raises(UnreadableDocument, match="split it"):
        DocumentBuilder().table([["a"], ["", "b"], ["", "", "c"]])


def test_text_is_nfc_without_control_characters() -> None:
    b = DocumentBuilder()
    b.paragraph("\u1112\u1161\u11ab\u1100\u1173\u11af\x00\x07 a\ufeffb\xadc\u200bd e\u0301 \ud800x")
    assert build(b).text == "한글 abcd é x"


def test_chinese_and_japanese_lines_join_without_a_space() -> None:
    b = DocumentBuilder()
    b.heading("日本語の\n文章 와\n한글", 2)
    assert build(b).text == "日本語の文章 와 한글"


def test_blank_pieces_vanish_and_nothing_left_is_an_error() -> None:
    b = DocumentBuilder()
    b.paragraph(" \n\t")
    b.heading("", 1)
    b.table([["", " "]], 1)
    b.code("\n\n")
    b.list_item(" ")
    with pytest.raises(UnreadableDocument, match="no extractable text"):
        build(b)


@pytest.mark.parametrize(
    ("declared", "heading", "title"),
    [("선언된 제목", "머리", "선언된 제목"), (" ", "머리", "머리"), (None, None, "file")],
)
def test_title_is_declared_or_heading_or_stem(
    declared: str | None, heading: str | None, title: str
) -> None:
    b = DocumentBuilder()
    b.title = declared
    b.heading("소제목", 2)
    b.heading(heading or "", 1)
    assert build(b).title == title


def test_extra_metadata_wins_and_blank_values_are_left_out() -> None:
    b = DocumentBuilder()
    b.paragraph("text")
    b.metadata = {"author": " Kim\x00 ", "subject": " ", "tags": ["a ", "b"], "pages": 3}
    document = build(b, author="Lee", team="x")
    assert document.metadata == {"author": "Lee", "tags": ["a", "b"], "pages": 3, "team": "x"}


def test_heading_levels_are_clamped() -> None:
    b = DocumentBuilder()
    b.heading("a", 0)
    b.heading("b", 9)
    assert [k.level for k in build(b).blocks] == [1, 6]
    assert build(b).blocks[0].kind is BlockKind.HEADING

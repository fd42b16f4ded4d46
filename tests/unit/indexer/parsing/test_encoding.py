from __future__ import annotations

import pytest

from indexer.parsing.encoding import decode
from rag.errors import UnreadableDocument

KOREAN = "안녕하세요. 이것은 한국어 문서입니다."
MIXED = "The file 보고서.txt was saved.\n" * 3


@pytest.mark.parametrize("text", [KOREAN, MIXED, "한글", "뷁쉙"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949"])
def test_korean_in_every_usual_encoding(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_mark_is_known_by_its_zeros(encoding: str) -> None:
    text = "plain words, and 한글 too"
    assert decode(text.encode(encoding)) == text


def test_euc_kr() -> None:
    assert decode(KOREAN.encode("euc-kr")) == KOREAN


@pytest.mark.parametrize("encoding", ["cp932", "euc_jp", "utf-8"])
def test_japanese(encoding: str) -> None:
    text = "これは日本語のテスト文章です。"
    assert decode(text.encode(encoding)) == text


def test_western_european() -> None:
    text = "naïve café, Grüße aus München – “quoted” text with few accents"
    assert decode(text.encode("cp1252")) == text
    assert (
        decode(b"caf\xe9 \x81 au lait, and more plain text")
        == "café \x81 au lait, and more plain text"
    )


def test_russian() -> None:
    text = "Это довольно длинный русский текст, чтобы статистика сработала. " * 5
    assert decode(text.encode("cp1251")) == text


def test_declared_encoding_is_tried_before_guessing() -> None:
    assert decode("Привет".encode("koi8-r"), "koi8-r") == "Привет"
    assert decode(KOREAN.encode(), "cp1252") == KOREAN, "valid UTF-8 beats a wrong declaration"
    assert decode("한글".encode("cp949"), "no-such-encoding") == "한글"


def test_utf8_with_a_damaged_place_stays_utf8() -> None:
    damaged = (KOREAN * 20).encode() + b"\xff" + "끝".encode()
    assert decode(damaged) == KOREAN * 20 + "\ufffd끝"


def test_binary_is_refused() -> None:
    with pytest.raises(UnreadableDocument, match="binary"):
        decode(b"\x00\x01\x02\x03binary\x00\xff\xfe")

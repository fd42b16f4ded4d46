"""Bytes of a text file to its characters, when nothing but the bytes says how they are encoded."""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes

from rag.errors import UnreadableDocument

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it starts with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 65_536
_NON_ASCII = re.compile("[^\x00-\x7f]")
_HANGUL = re.compile("[\uac00-\ud7a3\u3131-\u318e]")
_HAN = re.compile("[\u4e00-\u9fff\uf900-\ufaff]")
_KANA = re.compile("[\u3041-\u30fa]")
_HIGH_BYTES = re.compile(rb"[\x80-\xff]")


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of `data`.

    Tried in order: byte order mark, UTF-16 by its zero bytes, UTF-8, the declared encoding, the
    Korean and Japanese encodings by the characters they give, then `charset-normalizer`.
    Raises UnreadableDocument when it is binary.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    if utf16 := _utf16_by_zeros(data[:_SAMPLE]):
        return data.decode(utf16, "replace")
    if b"\0" in data[:_SAMPLE]:
        raise UnreadableDocument("it holds binary data, not text")
    text = _utf8(data)
    if text is None and declared:
        text = _strict(data, declared)
    if text is None:
        text = _east_asian(data)
    if text is None:
        text = _guessed(data)
    return text


def _utf8(data: bytes) -> str | None:
    """Strict UTF-8, or UTF-8 with so few damaged places that it can be nothing else."""
    text = _strict(data, "utf-8")
    if text is not None:
        return text
    text = data.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    return text if damaged * 50 <= len(_NON_ASCII.findall(text)) else None


def _strict(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError):
        return None


def _utf16_by_zeros(sample: bytes) -> str | None:
    """UTF-16 without a mark: every second byte of its ASCII is zero, and the others are not."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if max(even, odd) < 2 or min(even, odd) * 10 > max(even, odd):
        return None
    encoding = "utf-16-le" if odd > even else "utf-16-be"
    text = sample[: len(sample) // 2 * 2].decode(encoding, "replace")
    if any(ord(c) < 0x20 and c not in "\t\n\r\f" for c in text):
        return None
    plausible = sum(c.isalnum() or c.isspace() or c in ".,:;!?'\"()-" for c in text)
    return encoding if plausible > 0.7 * len(text) else None


def _east_asian(data: bytes) -> str | None:
    """CP949 (with EUC-KR in it), CP932 (Shift JIS) or EUC-JP, where the outcome reads like it."""
    for encoding in ("cp949", "cp932", "euc_jp"):
        text = _strict(data, encoding)
        if text is None:
            continue
        foreign = "".join(_NON_ASCII.findall(text[:_SAMPLE]))
        hangul, han, kana = (len(p.findall(foreign)) for p in (_HANGUL, _HAN, _KANA))
        if encoding == "cp949" and hangul > 0.7 * len(foreign) and han <= 0.15 * len(foreign):
            return text
        if encoding != "cp949" and kana > 0.2 * len(foreign) and kana + han > 0.6 * len(foreign):
            return text
    return None


def _guessed(data: bytes) -> str:
    sample = data[:_SAMPLE]
    if len(_HIGH_BYTES.findall(sample)) < 0.15 * len(sample):
        # A few accents among ASCII: Western European, which no statistics tell from its cousins.
        return _strict(data, "cp1252") or data.decode("latin-1")
    best = from_bytes(sample).best()
    if best is None:
        return data.decode("latin-1")
    return data.decode(best.encoding, "replace")

"""What every extracted string goes through before it is part of a document."""

from __future__ import annotations

import re
import unicodedata

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Controls, lone surrogates, noncharacters, and the invisible marks that split words for no reader:
# soft hyphen, zero-width space, word joiner, byte order mark.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u200b\u2060\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
_ODD_SPACES = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f]")
_BLANKS = re.compile(r"[ \t]+")
_NO_SPACE_SCRIPTS = "\u3000-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff01-\uff65"
_UNSPACED_BREAK = re.compile(f"(?<=[{_NO_SPACE_SCRIPTS}])\n(?=[{_NO_SPACE_SCRIPTS}])")


def clean(text: str) -> str:
    r"""NFC with '\n' line ends, without control characters; spaces and line breaks are kept."""
    text = _LINE_ENDS.sub("\n", text)
    text = _INVISIBLE.sub("", text)
    return unicodedata.normalize("NFC", _ODD_SPACES.sub(" ", text))


def clean_lines(text: str) -> str:
    """`clean`, each line with single spaces inside and none around it, no empty lines."""
    lines = (_BLANKS.sub(" ", line).strip() for line in clean(text).split("\n"))
    return "\n".join(line for line in lines if line)


def one_line(text: str) -> str:
    """`clean` on one line: line breaks become spaces, or nothing between Chinese or Japanese."""
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    return " ".join(unwrap(clean_lines(text)).split())


def verbatim(text: str) -> str:
    """`clean` without the blank lines around it and the spaces at line ends: for code."""
    lines = [line.rstrip() for line in clean(text).split("\n")]
    while lines and not lines[0]:
        del lines[0]
    while lines and not lines[-1]:
        lines.pop()
    return "\n".join(lines)


def unwrap(text: str) -> str:
    """Joins the lines of one wrapped paragraph, without a space where the script has none."""
    return _UNSPACED_BREAK.sub("", text).replace("\n", " ")

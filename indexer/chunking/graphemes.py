"""Where a text must not be cut: inside what a reader sees as one character."""

from __future__ import annotations

import unicodedata

_ZWNJ, _ZWJ = "\u200c", "\u200d"
_VIRAMA = 9  # canonical combining class


def joins(text: str, position: int, floor: int = 0) -> bool:
    """Whether `text[position - 1]` and `text[position]` are parts of one grapheme.

    `floor` is a position at which a grapheme begins, 0 < position < len(text). Follows the
    extended grapheme clusters of UAX #29, and errs on the side of joining.
    """
    left, right = text[position - 1], text[position]
    if right < "\u0300":
        return left == _ZWJ or (left == "\r" and right == "\n")
    if extends(right) or left == _ZWJ:
        return True
    if _is_regional(right) and _is_regional(left):
        first = position - 1
        while first > floor and _is_regional(text[first - 1]):
            first -= 1
        return (position - first) % 2 == 1  # flags are pairs of these
    if _is_one_syllable(left, right):
        return True
    mark = position - 1
    while mark > floor and extends(text[mark]) and unicodedata.combining(text[mark]) != _VIRAMA:
        mark -= 1
    return unicodedata.combining(text[mark]) == _VIRAMA  # consonants that are written as one


def extends(character: str) -> bool:
    """Whether a character belongs to the one before it, whatever that is."""
    if character < "\u0300":
        return False
    return (
        unicodedata.category(character)[0] == "M"
        or character in (_ZWJ, _ZWNJ, "\u0e33", "\u0eb3", "\uff9e", "\uff9f")
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= character <= "\U000e007f"  # tags
    )


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _is_one_syllable(left: str, right: str) -> bool:
    """Hangul jamo that stand together as one syllable (rules GB6 to GB8)."""
    after = _jamo(right)
    if after in ("V", "T"):
        return _jamo(left) != ""
    return after in ("L", "S") and _jamo(left) == "L"


def _jamo(character: str) -> str:
    """L, V, T for a leading, vowel or trailing jamo, S for a syllable, else ''."""
    if "가" <= character <= "힣":
        return "S"
    if "\u1100" <= character <= "\u115f" or "\ua960" <= character <= "\ua97c":
        return "L"
    if "\u1160" <= character <= "\u11a7" or "\ud7b0" <= character <= "\ud7c6":
        return "V"
    return "T" if "\u11a8" <= character <= "\u11ff" or "\ud7cb" <= character <= "\ud7fb" else ""

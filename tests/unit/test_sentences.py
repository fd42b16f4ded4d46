from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.sentences import split_sentences


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    "expected",
    [
        ["The pump runs.", "It stops at 40 °C!", "Why?", "Nobody knows."],
        ["It costs 3.14 dollars.", "Version 2.0.1 is out."],
        ["Dr. Kim met Mr. Lee at 5 p.m. on Friday.", "They talked."],
        ["Use a cache, e.g. Redis or i.e. memory.", "See Fig. 3 and No. 5 for more."],
        ["J. K. Rowling wrote it in the U.S. Senate.", "We read it."],
        ["See https://example.com/a.b?x=1.2 for details.", "Then go on."],
        ["Call `a. B` first.", "`kubectl` comes next."],
        ['He said "Stop."', "Then he left."],
        ["배터리는 40도에서 멈춥니다.", "다시 켜면 됩니다.", "괜찮을까요?", "네, 괜찮아요!"],
        ["시행일은 2024. 3. 15. 입니다.", "그 뒤에 바뀌었다."],
        ["전압은 3.3V이다.", "kubectl을 실행한다."],
        ['그는 "끝났다."라고 말했다.', "모두 웃었다."],
        ["温度は高い。", "次の文です。"],
        ["Wait... what?", "Go on."],
        ["The first fact. [1]", "The second.[2][3]", "Third."],
        ["The answer is no.", "It stays so."],
    ],
)
def test_prose(expected: list[str]) -> None:
    assert sentences(" ".join(expected)) == expected


def test_korean_without_a_space_between_sentences() -> None:
    assert sentences("먼저 끈다.그리고 기다린다.") == ["먼저 끈다.", "그리고 기다린다."]


def test_wrapped_lines_are_one_sentence() -> None:
    text = (
        "The reactor is cooled by water that\nflows through two loops. The second\nloop is spare."
    )
    assert sentences(text) == [
        "The reactor is cooled by water that\nflows through two loops.",
        "The second\nloop is spare.",
    ]


def test_structure_is_kept_apart() -> None:
    text = (
        "# Set-up guide\nFirst line here. Second.\n\n"
        "- one item\n- another item\n  that goes on\n1. Open it. Look inside.\n2. 닫는다\n\n"
        "| name | value |\n|---|---|\n| a. B | 1 |\n"
        "```python\nx = f(1). y()\nprint(x)\n```\nDone now."
    )
    assert sentences(text) == [
        "# Set-up guide", "First line here.", "Second.",
        "- one item", "- another item\n  that goes on", "1. Open it.", "Look inside.", "2. 닫는다",
        "| name | value |", "|---|---|", "| a. B | 1 |",
        "```python", "x = f(1). y()", "print(x)", "```", "Done now.",
    ]  # fmt: skip


def test_lines_of_a_checklist_and_of_a_column_of_codes() -> None:
    text = (
        "[ ] It stops on SIGTERM, and it does not\nwait for open requests. [x] no\n"
        "[x] It runs as a user.\n\n0 normal end\n137 killed: out of memory, or too slow\n1 error"
    )
    assert sentences(text) == [
        "[ ] It stops on SIGTERM, and it does not\nwait for open requests.",
        "[x] no",
        "[x] It runs as a user.",
        "0 normal end",
        "137 killed: out of memory, or too slow",
        "1 error",
    ]


def test_titles_and_key_value_lines() -> None:
    text = (
        "Cooling\nThe reactor is cooled by water that flows through it.\n\n이름: 홍길동\n직책: 팀장"
    )
    assert sentences(text) == [
        "Cooling",
        "The reactor is cooled by water that flows through it.",
        "이름: 홍길동",
        "직책: 팀장",
    ]


ALPHABET = (
    string.ascii_letters + string.digits + " \n\t\r.?!…。\"'()[]|#-*`~:;다요까죠가나1234\u2028"
)


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet=ALPHABET, max_size=200) | st.text(max_size=200))
def test_spans_are_ordered_disjoint_and_complete(text: str) -> None:
    end_before = 0
    for start, end in split_sentences(text):
        assert end_before <= start < end <= len(text)
        assert text[end_before:start].strip() == ""
        assert text[start:end] == text[start:end].strip()
        end_before = end
    assert text[end_before:].strip() == ""


@pytest.mark.parametrize(
    "unit",
    ["a", "가", " ", "\n", ". ", ".", "e.g. ", "[1]", "`", "a: b\n", "- \n", "1. ", "다.", "```\n",
     "(", "\n\n ", "x\n", "| \n", "2024. 3. "],
)  # fmt: skip
def test_hostile_input_is_split_in_linear_time(unit: str) -> None:
    # A quadratic scan would read 10^11 characters here and the suite would never end.
    text = unit * (300_000 // len(unit))
    spans = split_sentences(text)
    kept = "".join("".join(text[start:end].split()) for start, end in spans)
    assert kept == "".join(text.split())

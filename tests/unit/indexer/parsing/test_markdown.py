from __future__ import annotations

import pytest

from indexer.parsing import parse
from rag.errors import UnreadableDocument


def test_structure(parsed, blocks) -> None:
    document = parsed(
        "# 설치 { #install }\n\n한 줄\n다음 줄, *강조* `code` "
        "[링크](http://x){.ext target=_blank}.\n\n"
        "1. 하나\n2. 둘\n   - 안쪽\n\n   ```sh\n   rm  -r x\n   ```\n3. 셋\n\n"
        "| 이름 | 값 |\n|--|--|\n| a\\|b | 1 |\n\n---\n\n> 인용\n\n"
        "    indented code\n\nEnd<br>here\n",
        "docs/install.md",
    )
    assert blocks(document) == [
        ("heading1", "설치"),
        ("paragraph", "한 줄 다음 줄, 강조 code 링크."),
        ("list", "1. 하나\n2. 둘\n  - 안쪽"),
        ("code", "rm  -r x"),
        ("list", "3. 셋"),
        ("table", "| 이름 | 값 |\n|---|---|\n| a\\|b | 1 |"),
        ("paragraph", "인용"),
        ("code", "indented code"),
        ("paragraph", "End\nhere"),
    ]
    assert (document.title, document.lang, document.format) == ("설치", "ko", "md")


def test_front_matter_becomes_metadata(parsed) -> None:
    document = parsed(
        "---\ntitle: 제목\nlang: ko-KR\ndate: 2024-05-01\ntags: [a, b]\n"
        "meta: {owner: {name: Kim}, empty: null}\nitems: [{x: 1}, {x: 2}]\n---\n"
        "# 다른 제목\n한글\n",
        "a.md",
    )
    assert document.title == "제목"
    assert document.lang == "ko"
    assert document.metadata == {
        "title": "제목",
        "lang": "ko-KR",
        "date": "2024-05-01",
        "tags": ["a", "b"],
        "meta.owner.name": "Kim",
        "items.0.x": 1,
        "items.1.x": 2,
    }
    assert document.text == "다른 제목\n\n한글"


@pytest.mark.parametrize(
    ("text", "metadata"),
    [
        ("+++\ntitle = 'T'\nn = 3\n+++\nbody", {"title": "T", "n": 3}),
        ("importance: 5\n\n---\n\nbody", {"importance": 5}),
        ("---\n---\nbody", {}),
    ],
)
def test_other_headers(parsed, text: str, metadata: dict[str, object]) -> None:
    document = parsed(text, "a.md")
    assert document.metadata == metadata
    assert document.text == "body"


@pytest.mark.parametrize("text", ["---\nno mapping\n---\nbody", "---\na: [\n---\nbody"])
def test_what_is_no_header_stays_text(parsed, text: str) -> None:
    document = parsed(text, "a.md")
    assert document.metadata == {}
    assert "body" in document.text
    assert len(document.text) > len("body")


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(UnreadableDocument, match="more than 1000 values"):
        parse(("---\n" + "\n".join(lines) + "\n---\nx").encode(), doc_id="a.md", uri="")


@pytest.mark.parametrize(
    "text",
    [
        '/// info | "정보"\n\n본문\n\n///\n',
        ":::info 정보\n본문\n:::\n",
        '!!! note "정보"\n    본문\n',
        '```smart header="정보"\n본문\n```\n',
        "```{note} 정보\n본문\n```\n",
    ],
)
def test_notes_keep_title_and_text(parsed, blocks, text: str) -> None:
    document = parsed("앞\n\n" + text + "\n뒤\n", "a.md")
    assert blocks(document) == [("paragraph", t) for t in ("앞", "정보", "본문", "뒤")]


def test_directive_signs_inside_code_stay(parsed, blocks) -> None:
    document = parsed("```js\n/// <reference/>\n::: x\n```\n", "a.md")
    assert blocks(document) == [("code", "/// <reference/>\n::: x")]


def test_html_inside(parsed, blocks) -> None:
    document = parsed(
        "text\n\n<!-- no -->\n\n<script>no()</script>\n\n<table><tr><th>A</th><th>B</th></tr>"
        "<tr><td>1</td><td>2</td></tr></table>\n\n2<sup>53</sup>\n",
        "a.md",
    )
    assert blocks(document) == [
        ("paragraph", "text"),
        ("table", "| A | B |\n|---|---|\n| 1 | 2 |"),
        ("paragraph", "2^53"),
    ]

from __future__ import annotations

PAGE = """<!DOCTYPE html><html lang="ko"><head><title>주문 안내 - 예제 위키</title>
<meta name="author" content="김"><meta property="og:description" content="설명">
<style>.x{}</style></head><body>
<header><a>사이트</a></header><nav><ul><li>메뉴</li></ul></nav>
<main><h1>주문 안내</h1><p>첫 <a class="reference internal">문단</a>이다.<br>둘째 줄</p>
<script>evil()</script>
<div>글자만 <span>이어짐</span></div>
<ul><li>하나<ul><li>안</li></ul></li><li><p>둘</p><p>이어서</p></li></ul>
<ol start="3"><li>셋</li></ol>
<dl><dt>용어</dt><dd>뜻</dd></dl>
<table><caption>표 1</caption><thead><tr><th>이름</th><th>값</th></tr></thead>
<tbody><tr><td rowspan="2">가</td><td>1</td></tr><tr><td>2|3</td></tr></tbody></table>
<pre><code>def f():
    return 1
</code></pre>
<p hidden>숨김</p><p style="display: none">숨김</p><div aria-hidden="true">숨김</div>
<p>2<sup>10</sup> H<sub>2</sub>O<sup class="reference"><a href="#1">[1]</a></sup></p>
</main><aside>광고</aside><footer>바닥</footer></body></html>"""


def test_main_content_in_order(parsed, blocks) -> None:
    document = parsed(PAGE, "wiki/order.html")
    assert blocks(document) == [
        ("heading1", "주문 안내"),
        ("paragraph", "첫 문단이다.\n둘째 줄"),
        ("paragraph", "글자만 이어짐"),
        ("list", "- 하나\n  - 안\n- 둘\n  이어서"),
        ("list", "3. 셋"),
        ("list", "- 용어\n  뜻"),
        ("paragraph", "표 1"),
        ("table", "| 이름 | 값 |\n|---|---|\n| 가 | 1 |\n| 가 | 2\\|3 |"),
        ("code", "def f():\n    return 1"),
        ("paragraph", "2^10 H2O"),
    ]
    assert document.title == "주문 안내"
    assert document.lang == "ko"
    assert document.metadata == {"author": "김", "description": "설명"}


def test_title_that_is_not_the_heading_is_kept(parsed) -> None:
    assert parsed("<title>A - B</title><h1>C</h1>", "a.html").title == "A - B"
    assert parsed("<title>Cats and dogs</title><h1>Cats</h1>", "a.html").title == "Cats and dogs"


def test_layout_tables_are_walked(parsed, blocks) -> None:
    document = parsed(
        "<table><tr><td><h2>머리</h2><p>글</p></td></tr></table>"
        "<table><tr><td>a</td><td><table><tr><td>1</td><td>2</td></tr></table></td></tr></table>",
        "a.html",
    )
    assert blocks(document) == [
        ("heading2", "머리"),
        ("paragraph", "글"),
        ("paragraph", "a"),
        ("table", "| 1 | 2 |"),
    ]


def test_declared_charset(parsed) -> None:
    page = '<html><head><meta charset="euc-kr"></head><body><p>한국어 문서 café</p></body></html>'
    assert parsed(page.replace("café", "").encode("euc-kr"), "a.htm").text == "한국어 문서"
    xhtml = '<?xml version="1.0" encoding="utf-8"?><html lang="en"><body><p>한글</p></body></html>'
    assert parsed(xhtml, "a.xhtml").lang == "ko"


def test_depth_and_spans_are_bounded(parsed) -> None:
    assert parsed("<div>" * 3000 + "deep", "a.html").text == "deep"
    cell = '<td rowspan="60000" colspan="9999">x</td>'
    rows = "<tr><td>y</td></tr>" * 300
    assert len(parsed(f"<table><tr>{cell * 50}</tr>{rows}</table>", "a.html").text) < 100_000

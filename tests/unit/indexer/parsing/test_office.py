from __future__ import annotations

import datetime
import io
import zipfile

import docx
import openpyxl
import pptx
import pytest
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from indexer.parsing import archive, parse
from rag.errors import UnreadableDocument


def saved(document: object) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)  # type: ignore[attr-defined]
    return buffer.getvalue()


def word() -> bytes:
    document = docx.Document()
    document.core_properties.title = "배포 안내"
    document.core_properties.author = "김"
    document.core_properties.created = datetime.datetime(2025, 3, 1, 9, 0)
    document.add_heading("배포", 0)
    document.add_heading("준비", 2)
    document.add_paragraph("첫 문단")
    document.add_paragraph("하나", style="List Bullet")
    document.add_paragraph("둘", style="List Bullet")
    document.add_paragraph("first", style="List Number")
    document.add_paragraph("second", style="List Number")
    table = document.add_table(2, 3)
    for i, row in enumerate(table.rows):
        for j, cell in enumerate(row.cells):
            cell.text = f"{'이름' if i == 0 else '값'}{j}"
    table.cell(1, 0).merge(table.cell(1, 1)).text = "합침"
    document.add_paragraph("끝")
    return saved(document)


def test_docx(parsed, blocks) -> None:
    document = parsed(word(), "a.docx")
    assert blocks(document) == [
        ("heading1", "배포"),
        ("heading2", "준비"),
        ("paragraph", "첫 문단"),
        ("list", "- 하나\n- 둘\n1. first\n2. second"),
        ("table", "| 이름0 | 이름1 | 이름2 |\n|---|---|---|\n| 합침 |  | 값2 |"),
        ("paragraph", "끝"),
    ]
    assert document.title == "배포 안내"
    assert document.lang == "ko"
    assert document.metadata["author"] == "김"
    assert document.metadata["created"] == "2025-03-01T09:00:00"


def test_docx_takes_insertions_and_links_but_no_deletions(parsed) -> None:
    document = docx.Document()
    paragraph = document.add_paragraph("가 ")
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    for xml in (
        f"<w:del {space}><w:r><w:delText>지움</w:delText></w:r></w:del>",
        f"<w:ins {space}><w:r><w:t>넣음</w:t></w:r></w:ins>",
        f"<w:hyperlink {space}><w:r><w:t>링크</w:t></w:r></w:hyperlink>",
    ):
        paragraph._p.append(docx.oxml.parse_xml(xml))
    assert parsed(saved(document), "a.docx").text == "가 넣음링크"


def test_pptx(parsed, blocks) -> None:
    deck = pptx.Presentation()
    deck.core_properties.title = "PowerPoint Presentation"
    first = deck.slides.add_slide(deck.slide_layouts[0])
    first.shapes.title.text = "검색 교육"
    first.placeholders[1].text = "검색팀"
    second = deck.slides.add_slide(deck.slide_layouts[1])
    second.shapes.title.text = "왜"
    frame = second.placeholders[1].text_frame
    frame.text = "하나"
    paragraph = frame.add_paragraph()
    paragraph.text, paragraph.level = "안쪽", 1
    second.notes_slide.notes_text_frame.text = "말할 것"
    third = deck.slides.add_slide(deck.slide_layouts[5])
    third.shapes.title.text = "표"
    table = third.shapes.add_table(2, 2, Inches(1), Inches(2), Inches(4), Inches(1)).table
    for i in range(2):
        for j in range(2):
            table.cell(i, j).text = f"{i}{j}"
    data = CategoryChartData()
    data.categories = ["1월", "2월"]
    data.add_series("질문", (3, 4.5))
    third.shapes.add_chart(
        XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(4), Inches(4), Inches(2), data
    )
    hidden = deck.slides.add_slide(deck.slide_layouts[5])
    hidden.shapes.title.text = "숨김"
    hidden.element.set("show", "0")
    document = parsed(saved(deck), "a.pptx")
    assert blocks(document) == [
        ("heading1", "검색 교육"),
        ("paragraph", "검색팀"),
        ("heading2", "왜"),
        ("list", "- 하나\n  - 안쪽"),
        ("paragraph", "말할 것"),
        ("heading2", "표"),
        ("table", "| 00 | 01 |\n|---|---|\n| 10 | 11 |"),
        ("table", "|  | 질문 |\n|---|---|\n| 1월 | 3 |\n| 2월 | 4.5 |"),
    ]
    assert [b.page for b in document.blocks] == [1, 1, 2, 2, 2, 3, 3, 3]
    assert document.title == "검색 교육"
    assert document.metadata["slides"] == 4


def test_xlsx(parsed, blocks) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "단가"
    sheet.append(["2025년 단가표"])
    sheet.append([None, "유형", "단가", "시작", "비율"])
    sheet.append([None, "c7i|x", 2.10, datetime.date(2025, 7, 1), 0.05])
    sheet["E3"].number_format = "0%"
    sheet.append([None, "g5", 12, datetime.datetime(2025, 7, 1, 9, 30), True])
    sheet.append([])
    sheet.append([None, None, "메모 하나"])
    book.create_sheet("빈 시트")
    secret = book.create_sheet("숨김")
    secret["A1"] = "비밀"
    secret.sheet_state = "hidden"
    book.create_sheet("둘")["B2"] = "=1+1"
    document = parsed(saved(book), "a.xlsx")
    assert blocks(document) == [
        ("heading1", "단가"),
        ("paragraph", "2025년 단가표"),
        (
            "table",
            "| 유형 | 단가 | 시작 | 비율 |\n|---|---|---|---|\n"
            "| c7i\\|x | 2.1 | 2025-07-01 | 5% |\n"
            "| g5 | 12 | 2025-07-01 09:30:00 | TRUE |",
        ),
        ("paragraph", "메모 하나"),
    ]
    assert document.blocks[2].header_end is not None
    assert document.metadata["sheets"] == 3


def rezipped(data: bytes, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(
                name, members.pop(name.replace("/", "_").replace(".", "_"), old.read(name))
            )
        for name, content in members.items():
            new.writestr(name, content)
    return buffer.getvalue()


def test_a_zip_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = rezipped(word(), big=b"\0" * (archive.RATIO_APPLIES_FROM_BYTES + 1))
    with pytest.raises(UnreadableDocument, match="'big' unpacks more than 200-fold"):
        parse(bomb, doc_id="a.docx", uri="")
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 1000)
    with pytest.raises(UnreadableDocument, match="limit 1000"):
        parse(word(), doc_id="a.docx", uri="")


def test_entities_are_refused() -> None:
    xml = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">]><w:document/>'
    with pytest.raises(UnreadableDocument, match="declares a document type"):
        parse(rezipped(word(), word_document_xml=xml), doc_id="a.docx", uri="")


@pytest.mark.parametrize("name", ["a.docx", "a.pptx", "a.xlsx", "a.odt", "a.epub"])
def test_truncated_and_foreign_containers(name: str) -> None:
    for data in (
        word()[:3000],
        b"PK\x03\x04" + b"x" * 100,
        rezipped(b"PK\x05\x06" + b"\0" * 18, a=b""),
    ):
        with pytest.raises(UnreadableDocument, match=rf"^{name}: "):
            parse(data, doc_id=name, uri="")


def zipped(*members: tuple[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as container:
        for name, content in members:
            container.writestr(name, content)
    return buffer.getvalue()


_NAMES = (
    'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
    'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" '
    'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" '
    'xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0" '
    'xmlns:presentation="urn:oasis:names:tc:opendocument:xmlns:presentation:1.0"'
)


def open_document(kind: str, body: str) -> bytes:
    content = (
        f"<office:document-content {_NAMES}><office:body><office:{kind}>{body}"
        f"</office:{kind}></office:body></office:document-content>"
    )
    return zipped(
        ("mimetype", f"application/vnd.oasis.opendocument.{kind}"), ("content.xml", content)
    )


def test_odt(parsed, blocks) -> None:
    body = (
        '<text:p text:style-name="Title">제목</text:p>'
        '<text:h text:outline-level="2">머리</text:h><text:p>가<text:s text:c="2"/>나'
        "<text:line-break/>다</text:p><text:list><text:list-item><text:p>하나</text:p><text:list>"
        "<text:list-item><text:p>안</text:p></text:list-item></text:list></text:list-item></text:list>"
        "<table:table><table:table-row><table:table-cell><text:p>A</text:p></table:table-cell>"
        "<table:table-cell><text:p>B</text:p></table:table-cell></table:table-row>"
        '<table:table-row table:number-rows-repeated="2"><table:table-cell '
        'table:number-columns-repeated="2"><text:p>1</text:p></table:table-cell></table:table-row>'
        "</table:table>"
    )
    assert blocks(parsed(open_document("text", body), "a.odt")) == [
        ("heading1", "제목"),
        ("heading2", "머리"),
        ("paragraph", "가 나\n다"),
        ("list", "- 하나\n  - 안"),
        ("table", "| A | B |\n|---|---|\n| 1 | 1 |\n| 1 | 1 |"),
    ]


def test_odp_and_ods(parsed, blocks) -> None:
    slide = (
        '<draw:page><draw:frame presentation:class="title"><draw:text-box><text:p>제목</text:p>'
        "</draw:text-box></draw:frame><draw:frame><draw:text-box><text:p>글</text:p></draw:text-box>"
        '</draw:frame><draw:frame presentation:class="page-number"><draw:text-box>'
        "<text:p>1</text:p>"
        "</draw:text-box></draw:frame></draw:page>"
    )
    document = parsed(open_document("presentation", slide * 2), "a.odp")
    assert blocks(document) == [
        ("heading1", "제목"),
        ("paragraph", "글"),
        ("heading2", "제목"),
        ("paragraph", "글"),
    ]
    assert document.metadata == {"slides": 2}
    cells = "".join(f"<table:table-cell><text:p>{c}</text:p></table:table-cell>" for c in "가나")
    row = f"<table:table-row>{cells}</table:table-row>"
    sheet = f'<table:table table:name="시트">{row}{row}</table:table>'
    assert blocks(parsed(open_document("spreadsheet", sheet), "a.ods")) == [
        ("heading1", "시트"),
        ("table", "| 가 | 나 |\n|---|---|\n| 가 | 나 |"),
    ]


def test_epub(parsed, blocks) -> None:
    book = zipped(
        ("mimetype", "application/epub+zip"),
        ("META-INF/container.xml", '<container><rootfile full-path="O/p.opf"/></container>'),
        (
            "O/p.opf",
            '<package xmlns:dc="d"><metadata><dc:title>책</dc:title><dc:language>ko</dc:language>'
            "<dc:creator>김</dc:creator></metadata><manifest>"
            '<item id="b" href="%EB%91%98.xhtml" media-type="application/xhtml+xml"/>'
            '<item id="a" href="1.xhtml" media-type="application/xhtml+xml"/>'
            '<item id="n" href="n.xhtml" properties="nav" media-type="application/xhtml+xml"/>'
            '</manifest><spine><itemref idref="n"/><itemref idref="a"/><itemref idref="b"/></spine>'
            "</package>",
        ),
        (
            "O/1.xhtml",
            "<html><head><title>x</title></head><body><h1>1장</h1><p>가</p></body></html>",
        ),
        ("O/둘.xhtml", "<html><body><h1>2장</h1></body></html>"),
        ("O/n.xhtml", "<html><body>목차</body></html>"),
    )
    document = parsed(book, "a.epub")
    assert blocks(document) == [("heading1", "1장"), ("paragraph", "가"), ("heading1", "2장")]
    assert (document.title, document.lang) == ("책", "ko")
    assert document.metadata == {"author": "김", "chapters": 2}

"""PDFs written here by hand, line by line, and the sample's own."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from indexer.parsing import parse
from rag.errors import UnreadableDocument

SAMPLE = Path(__file__).parents[4] / "eval" / "sample" / "documents"


class Text(NamedTuple):
    x: float
    y: float
    size: float
    text: str
    font: str = "F1"


def pdf(*pages: list[Text], info: str = "") -> bytes:
    """A minimal PDF in Helvetica (F1) and Helvetica-Bold (F2), 612 x 792 points."""
    count = len(pages)
    kids = " ".join(f"{10 + 2 * i} 0 R" for i in range(count))
    objects = {
        1: "<< /Type /Catalog /Pages 2 0 R >>",
        2: f"<< /Type /Pages /Kids [{kids}] /Count {count} >>",
        3: "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        4: "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold >>",
        5: f"<< {info} >>",
    }
    for i, page in enumerate(pages):
        stream = "\n".join(
            f"BT /{t.font} {t.size} Tf {t.x} {t.y} Td ({t.text}) Tj ET" for t in page
        )
        objects[10 + 2 * i] = (
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents "
            f"{11 + 2 * i} 0 R /Resources << /Font << /F1 3 0 R /F2 4 0 R >> >> >>"
        )
        objects[11 + 2 * i] = f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream"
    body = b"%PDF-1.4\n"
    offsets = {}
    for number, content in objects.items():
        offsets[number] = len(body)
        body += f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1")
    start = len(body)
    body += f"xref\n0 {max(objects) + 1}\n0000000000 65535 f \n".encode()
    for number in range(1, max(objects) + 1):
        body += (
            f"{offsets.get(number, 0):010d} 00000 {'n' if number in offsets else 'f'} \n".encode()
        )
    trailer = (
        f"trailer\n<< /Size {max(objects) + 1} /Root 1 0 R /Info 5 0 R >>\nstartxref\n{start}\n"
    )
    return body + trailer.encode() + b"%%EOF\n"


LONG = "The index is built once and then it is read by many workers at the same time, and it"
SHORT = "ends here."


def body(y: float, *lines: str, size: float = 11) -> list[Text]:
    return [Text(72, y - i * 14, size, line) for i, line in enumerate(lines)]


def furniture(page: int) -> list[Text]:
    return [Text(72, 770, 9, "Example Handbook"), Text(300, 20, 9, f"Page {page} of 3")]


def test_headings_paragraphs_and_running_lines(parsed, blocks) -> None:
    pages = [
        [Text(72, 700, 24, "A Guide"), *body(660, LONG, LONG, SHORT), *body(600, LONG, SHORT)],
        [Text(72, 700, 16, "Second part"), *body(660, LONG, SHORT)],
        [*body(700, LONG, SHORT), Text(72, 640, 11, "A bold line", "F2"), *body(600, LONG, SHORT)],
    ]
    document = parsed(pdf(*(p + furniture(i + 1) for i, p in enumerate(pages))), "Guide.PDF")
    assert blocks(document) == [
        ("heading1", "A Guide"),
        ("paragraph", f"{LONG} {LONG} {SHORT}"),
        ("paragraph", f"{LONG} {SHORT}"),
        ("heading2", "Second part"),
        ("paragraph", f"{LONG} {SHORT}"),
        ("paragraph", f"{LONG} {SHORT}"),
        ("heading3", "A bold line"),
        ("paragraph", f"{LONG} {SHORT}"),
    ]
    assert [b.page for b in document.blocks] == [1, 1, 1, 2, 2, 3, 3, 3]
    assert document.title == "A Guide"
    assert document.lang == "en"
    assert document.metadata == {"pages": 3}


def test_hyphens_at_line_ends_are_rejoined(parsed) -> None:
    lines = [
        "The searching of passages is a well-known problem, and every text has some inter-",
        "national words. A query finds them by their letters, and this problem is well-",
        "known to all of us who read long lines of text in columns that are rather narr-",
        "ow.",
    ]
    assert parsed(pdf(body(700, *lines)), "a.pdf").text == (
        "The searching of passages is a well-known problem, and every text has some international "
        "words. A query finds them by their letters, and this problem is well-known to all of us "
        "who read long lines of text in columns that are rather narrow."
    )


def test_lists_and_figures_keep_their_lines(parsed, blocks) -> None:
    page = [
        *body(700, LONG, "first of all:"),
        *body(
            640, "- one thing that is long enough to fill the line and then goes on in a", "second"
        ),
        *body(612, "- two"),
        *body(560, "Revenue 2024 1,200 1,300", "Cost 2024 900 950", "Profit 2024 300 350"),
    ]
    assert blocks(parsed(pdf(page), "a.pdf"))[1:] == [
        (
            "list",
            "- one thing that is long enough to fill the line and then goes on in a second\n- two",
        ),
        ("paragraph", "Revenue 2024 1,200 1,300\nCost 2024 900 950\nProfit 2024 300 350"),
    ]


@pytest.mark.parametrize(
    ("declared", "title"),
    [
        ("Orders and returns", "Orders and returns"),
        ("Microsoft Word - draft3.doc", "A Guide"),
        ("untitled", "A Guide"),
        ("report.pdf", "A Guide"),
    ],
)
def test_title_from_metadata_if_sensible(parsed, declared: str, title: str) -> None:
    info = f"/Title ({declared}) /Author (Kim) /Subject (unspecified) /CreationDate (D:20250301)"
    document = parsed(
        pdf([Text(72, 700, 24, "A Guide"), *body(660, LONG, LONG)], info=info), "a.pdf"
    )
    assert document.title == title
    assert document.metadata == {"author": "Kim", "created": "2025-03-01", "pages": 1}


def test_a_pdf_without_text_says_so() -> None:
    with pytest.raises(UnreadableDocument, match=r"^scan\.pdf: it has no text layer .* OCR"):
        parse(pdf([]), doc_id="scan.pdf", uri="")


@pytest.mark.parametrize("cut", [20, 300, 700])
def test_a_broken_pdf_says_so(cut: int) -> None:
    with pytest.raises(UnreadableDocument, match=r"^a\.pdf: "):
        parse(b"%PDF-1.4\n" + b"\0garbage" * cut, doc_id="a.pdf", uri="")


def test_korean_sample(parsed, blocks) -> None:
    path = SAMPLE / "ko" / "운영" / "야간-색인-실패-보고서-INC-131.pdf"
    if not path.exists():
        pytest.skip("the sample corpus is not here")
    document = parsed(path.read_bytes(), path.name)
    assert document.lang == "ko"
    assert document.title.startswith("장애 보고서 INC-131")
    assert "새 색인은 평소 02시 41분에 나가야 했지만 09시 31분에야 나갔다." in document.text
    assert ("heading2", "1. 요약") in blocks(document)


def test_footers_below_short_pages_and_bold_sums(parsed, blocks) -> None:
    pages = [
        [
            *body(700, f"{word} {LONG}", "for long."),
            *body(640, "Cash and equivalents $ 2,800 $ 1,990", "Receivables, net 4,908 (12)"),
            Text(72, 590, 11, f"Total current assets {number} 23,223 28,829", "F2"),
            Text(72, 400, 9, f"Example Inc. | Form 10-Q | {number}"),
        ]
        for number, word in enumerate(("First", "Second", "Third"), start=1)
    ]
    document = parsed(pdf(*pages), "a.pdf")
    assert blocks(document)[:3] == [
        ("paragraph", f"First {LONG} for long."),
        ("paragraph", "Cash and equivalents $ 2,800 $ 1,990\nReceivables, net 4,908 (12)"),
        ("paragraph", "Total current assets 1 23,223 28,829"),
    ]
    assert "10-Q" not in document.text

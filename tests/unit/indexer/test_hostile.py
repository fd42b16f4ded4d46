"""Documents made to harm cost one line each, and nothing of their neighbours."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import docx
import openpyxl

from indexer.build import BuildOptions, build
from indexer.pipeline.workers import MIB, Limits
from indexer.source import Source

GOOD = "# Fine\n\nThis one is as it should be, number {}.\n"


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"0" * (64 * MIB))
    return buffer.getvalue()


def tree_of_a_million() -> bytes:
    """A Word file of some kilobytes, within every limit of an archive, that is huge once parsed."""
    buffer = io.BytesIO()
    docx.Document().save(buffer)
    result = io.BytesIO()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "word/document.xml":
                data = data.replace(b"<w:body>", b"<w:body>" + b"<a/>" * 2_500_000)
            new.writestr(name, data)
    return result.getvalue()


def test_each_hostile_document_costs_its_line(tmp_path: Path, tiny_options: BuildOptions) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    for n in range(12):
        (folder / f"{n:02}.md").write_text(GOOD.format(n))
    (folder / "03-bomb.docx").write_bytes(zip_bomb())
    (folder / "04-tree.docx").write_bytes(tree_of_a_million())
    (folder / "05-deep.json").write_text("[" * 200_000 + "]" * 200_000)
    options = replace(tiny_options, limits=Limits(memory=128 * MIB, processes=2))
    report = build(Source(str(folder)), tmp_path / "bundle", options)
    assert report.documents == 12
    reasons = {line.doc_id: line.reason for line in report.skipped}
    assert list(reasons) == ["03-bomb.docx", "04-tree.docx", "05-deep.json"]
    assert "unpacks more than" in reasons["03-bomb.docx"]
    assert "memory" in reasons["04-tree.docx"]
    assert "damaged" in reasons["05-deep.json"]


def forms_within_forms(levels: int = 14, times: int = 10) -> bytes:
    """A PDF of some kilobytes in which each form draws the next one ten times."""
    content = b"/F Do " * times
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R"
        b" /Resources << /XObject << /F 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
    ]
    for level in range(levels):
        below = b"/XObject << /F %d 0 R >>" % (6 + level) if level < levels - 1 else b""
        objects.append(
            b"<< /Type /XObject /Subtype /Form /BBox [0 0 200 200] /Resources << %s >>"
            b" /Length %d >>\nstream\n%s\nendstream" % (below, len(content), content)
        )
    data = b"%PDF-1.7\n"
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(places) + 1, table)
    tail = b"trailer << /Root 1 0 R /Size %d >>\nstartxref\n%d\n%%%%EOF\n"
    return data + head + tail % (len(places) + 1, len(data))


def one_string_in_many_cells(cells: int = 20_000) -> bytes:
    """A workbook of some kilobytes that says one long string in every cell."""
    book = openpyxl.Workbook()
    buffer = io.BytesIO()
    book.save(buffer)
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    part = f'<Override PartName="/xl/strings.xml" ContentType="{kind}.sharedStrings+xml"/></Types>'
    name_space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rows = b"<sheetData>" + b'<row><c t="s"><v>0</v></c></row>' * cells + b"</sheetData>"
    result = io.BytesIO()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "[Content_Types].xml":
                data = re.sub(rb"<Override[^>]*sharedStrings[^>]*/>", b"", data)
                data = data.replace(b"</Types>", part.encode())
            data = re.sub(rb"<sheetData ?/>|<sheetData></sheetData>", rows, data)
            if name != "xl/sharedStrings.xml":
                new.writestr(name, data)
        long = "x" * 9_000_000
        new.writestr("xl/strings.xml", f'<sst xmlns="{name_space}"><si><t>{long}</t></si></sst>')
    return result.getvalue()


def test_what_hangs_and_what_explodes_costs_its_line(
    tmp_path: Path, tiny_options: BuildOptions
) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    for n in range(6):
        (folder / f"{n:02}.md").write_text(GOOD.format(n))
    (folder / "02-forms.pdf").write_bytes(forms_within_forms())
    (folder / "03-cells.xlsx").write_bytes(one_string_in_many_cells())
    # Beautiful Soup's time grows with the square of how deep it is: here, to ten minutes.
    (folder / "04-tables.html").write_text("<p>deep</p>" + "<table><tr><td>" * 60_000)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2**20
    limits = Limits(seconds=8.0, memory=1024 * MIB, processes=2)
    report = build(Source(str(folder)), tmp_path / "bundle", replace(tiny_options, limits=limits))
    assert report.documents == 6
    reasons = {line.doc_id: line.reason for line in report.skipped}
    assert list(reasons) == ["02-forms.pdf", "03-cells.xlsx", "04-tables.html"]
    # Which limit these two come to first is up to the machine.
    for exploding in ("02-forms.pdf", "03-cells.xlsx"):
        assert re.search("memory|longer than 8 s", reasons[exploding])
    assert "longer than 8 s" in reasons["04-tables.html"]


def test_a_document_that_never_ends_is_given_up(tmp_path: Path, tiny_options: BuildOptions) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "good.md").write_text(GOOD.format(1))
    (folder / "long.txt").write_text("every word of it is to be read and cut up. " * 1_500_000)
    options = replace(tiny_options, limits=Limits(seconds=5.0, processes=1))
    report = build(Source(str(folder)), tmp_path / "bundle", options)
    assert report.documents == 1
    assert "longer than 5 s" in report.skipped[0].reason
    # It may have been the machine's fault: the next build tries it again.
    again = build(Source(str(folder)), tmp_path / "next", options, previous=str(report.folder))
    assert again.changes["retried"] == 1

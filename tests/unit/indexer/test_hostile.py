"""Documents made to harm cost one line each, and nothing of their neighbours."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import docx

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

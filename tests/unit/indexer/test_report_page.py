from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from indexer import report_plots as plots
from indexer.__main__ import app
from indexer.report_page import report_page


def test_the_page_tells_what_is_in_the_bundle(sample_bundle: Path, tmp_path: Path) -> None:
    page = report_page(str(sample_bundle), tmp_path)
    manifest = json.loads((sample_bundle / "manifest.json").read_bytes())
    assert manifest["version"] in page
    assert f"{manifest['counts']['documents']} documents" in page
    assert "recall@10 of 0.98; reached" in page
    assert "flat float32" in page
    for title in ("Length of passages", "Time of each stage", "Size of each part", "None."):
        assert title in page
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "").split("<details>")[0]
    for svg in page.split("<svg ")[1:]:
        ElementTree.fromstring("<svg " + svg.partition("</svg>")[0] + "</svg>")


def test_documents_left_out_are_listed_with_reasons(sample_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(sample_bundle, folder)
    line = {"doc_id": "a<b>.pdf", "reason": "it is encrypted & empty"}
    text = json.dumps({"skipped": [line] * 501})
    (folder / "report.json").write_text(text, encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["report.json"]["size"] = len(text)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    page = report_page(str(folder), tmp_path)
    assert "<td>a&lt;b&gt;.pdf</td><td>it is encrypted &amp; empty</td>" in page
    assert "And 1 more" in page


def test_the_command_writes_a_file(sample_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["report", str(sample_bundle), "--out", str(out)])
    assert result.exit_code == 0
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("tokens", [[], [0], [5, 5, 5], list(range(400))])
def test_any_lengths_can_be_drawn(tokens: list[int]) -> None:
    svg = plots.lengths(np.array(tokens, dtype=np.int64), 256)
    ElementTree.fromstring(svg)


def test_every_index_that_was_tried_is_drawn() -> None:
    line = {"index": "a", "recall_at_10": 1.0, "p50_ms": 0.0, "p95_ms": 3.0, "chosen": False}
    svg = plots.tried([line, line | {"index": "b", "recall_at_10": 0.9, "chosen": True}])
    ElementTree.fromstring(svg)
    assert "a: recall@10 1.0000" in svg
    assert "b: recall@10 0.9000" in svg

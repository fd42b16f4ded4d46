"""`rag-indexer build --fusion`: what it takes, what it refuses, what it seals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from indexer.build import BuildOptions, build
from indexer.fusion import parse_fusion
from indexer.source import Source
from rag.errors import ConfigurationError
from rag.retrieval.opening import open_retriever
from rag.types import Query

RRF = {"method": "rrf", "k": 20}


def test_json_or_a_file_of_it(tmp_path: Path) -> None:
    file = tmp_path / "fusion.json"
    file.write_text(json.dumps(RRF) + "\n", encoding="utf-8")
    assert parse_fusion(json.dumps(RRF)) == parse_fusion(str(file)) == parse_fusion(f"@{file}")
    assert parse_fusion(str(file)) == RRF


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ('{"method": "best"}', r"cannot be sealed: fusion\.method is 'best'"),
        ('{"method": "rrf", "q": 1}', r"fusion\.q is not known"),
        ('{"method": "weighted", "dense_weight": 2}', "use a number from 0 to 1"),
        ("{rrf}", "is not JSON"),
        ("@/nowhere/fusion.json", "cannot be read"),
    ],
)
def test_what_is_no_fusion_is_refused(option: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_fusion(option)


def test_a_file_that_holds_no_object_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "fusion.json"
    file.write_text("[1]")
    with pytest.raises(ConfigurationError, match="give a JSON object"):
        parse_fusion(str(file))


def test_it_is_sealed_and_used(tmp_path: Path, encoder_cache: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "lamp.txt").write_text("Hold the button for ten seconds to reset the lamp.")
    (documents / "휴가.txt").write_text("정규직 직원은 매년 15일의 연차 휴가를 받습니다.", "utf-8")
    options = BuildOptions(
        fusion=parse_fusion(json.dumps(RRF)), backend="onnx", encoder_cache=encoder_cache
    )
    report = build(Source(str(documents)), tmp_path / "bundle", options)
    opened = open_retriever(str(report.folder))
    assert opened.bundle.manifest.fusion == RRF
    asked = [Query("연차 휴가"), Query("연차 휴가", fusion=RRF)]
    sealed, named = opened.retriever.search(asked)
    assert [p.score for p in sealed.passages] == [p.score for p in named.passages]

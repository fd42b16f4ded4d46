"""A version goes live only if the eval suite lets it pass on the user's queries."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from indexer.build import BuildOptions, build
from indexer.gate import make_gate
from indexer.progress import Silent
from indexer.publish import publish, rollback
from indexer.source import Source
from rag.errors import ConfigurationError, GateRefused
from rag.index.root import Root
from rag.index.seal import read_manifest

WORDS = ["pump", "valve", "rotor", "seal", "bearing", "gasket", "piston", "nozzle", "filter"]


def bundle(folder: Path, words: list[str], options: BuildOptions) -> Path:
    (folder / "documents").mkdir(parents=True)
    for word in words:
        (folder / "documents" / f"{word}.md").write_text(f"# {word}\n\nHow to mend the {word}.\n")
    wanted = replace(options, dense={"kind": "flat"})
    return build(Source(str(folder / "documents")), folder / "bundle", wanted).folder


def test_a_worse_version_is_uploaded_and_not_served(
    tmp_path: Path, tiny_options: BuildOptions
) -> None:
    judged = tmp_path / "judged"
    (judged / "qrels").mkdir(parents=True)
    queries = [json.dumps({"_id": word, "text": f"mend the {word}"}) for word in WORDS]
    (judged / "queries.jsonl").write_text("\n".join(queries) + "\n")
    lines = ["query-id\tcorpus-id\tscore", *(f"{word}\t{word}.md\t1" for word in WORDS)]
    (judged / "qrels/test.tsv").write_text("\n".join(lines) + "\n")
    gate = make_gate(judged, Silent(), measure="nDCG@10", margin=0.01, strict=False)
    root = str(tmp_path / "root")
    good = publish(bundle(tmp_path / "good", WORDS, tiny_options), root, Silent(), gate)
    bad = bundle(tmp_path / "bad", [*WORDS[:2], "other", "thing"], tiny_options)
    with pytest.raises(GateRefused, match="uploaded but not current"):
        publish(bad, root, Silent(), gate)
    current = Root(root).current()
    assert current is not None
    assert current.version == good
    reports = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("root/gates/*/*.json"))]
    assert sorted(report["passed"] for report in reports) == [False, True]
    assert all("candidate" in report["results"] for report in reports)
    refused = read_manifest(bad).version
    assert rollback(root, refused) == (good, refused)


def test_a_gate_without_queries_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"queries\.jsonl"):
        make_gate(tmp_path, Silent(), measure="nDCG@10", margin=0.01, strict=False)

"""Checklist, Batch: the platform's transform over a real container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sagemaker_local.transform import Plan, payloads, transform

LINES = "application/jsonlines"
ASKED = [("reset the lamp", "en/lamp.md"), ("descale the kettle", "en/kettle.md"),
         ("연차 휴가", "ko/휴가.md"), ("prune roses", "en/garden.md")] * 25  # fmt: skip


def record(query: str, **fields: Any) -> bytes:
    return json.dumps({"query": query, "mode": "retrieve", "top_k": 1} | fields).encode()


@pytest.fixture(scope="module")
def batch(serve: Any) -> Any:
    """A service as a transform job starts it."""
    with serve(SAGEMAKER_BATCH="true", SAGEMAKER_MAX_PAYLOAD_IN_MB="6") as service:
        yield service.endpoint


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(record(query) + b"\n" for query, _ in ASKED))
    return path


def test_item_26_execution_parameters(batch: Any) -> None:
    plan = Plan.ask(batch)
    assert plan.concurrency * plan.max_payload_mb <= 100
    assert plan.strategy == "MULTI_RECORD"


@pytest.mark.parametrize("strategy", ["MULTI_RECORD", "SINGLE_RECORD"])
def test_item_27_n_lines_in_n_lines_out_in_order(
    batch: Any, source: Path, tmp_path: Path, strategy: Any
) -> None:
    target = tmp_path / "out.jsonl"
    plan = Plan.ask(batch, strategy=strategy)
    assert transform(batch, source, target, plan, content_type=LINES) == len(ASKED)
    found = [json.loads(line)["passages"][0]["doc_id"] for line in target.open("rb")]
    assert found == [expected for _, expected in ASKED]


def test_item_27_a_file_is_cut_into_several_payloads(batch: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    # Spaces make records of 300 KB: few of them fill a payload.
    source.write_bytes(b"".join(record(q).ljust(300_000) + b"\n" for q, _ in ASKED[:8]))
    plan = Plan("MULTI_RECORD", 1, 4)
    assert len(list(payloads(source.read_bytes(), plan))) > 2
    assert transform(batch, source, target, plan, content_type=LINES) == 8
    found = [json.loads(line)["passages"][0]["doc_id"] for line in target.open("rb")]
    assert found == [expected for _, expected in ASKED[:8]]


def test_item_28_no_final_newline_and_no_blank_lines_out(batch: Any) -> None:
    body = b"\n" + record("lamp") + b"\r\n\n" + record("kettle")
    reply = batch.send("POST", "/invocations", body, {"content-type": LINES})
    assert reply.body.endswith(b"\n")
    assert [bool(json.loads(line)) for line in reply.body.splitlines()] == [True, True]


def test_item_29_a_bad_record_is_one_error_line(batch: Any, source: Path, tmp_path: Path) -> None:
    with source.open("ab") as more:
        more.write(b"nope\n" + record("lamp", top_k=0) + b"\n" + record("kettle") + b"\n")
    target = tmp_path / "out.jsonl"
    assert transform(batch, source, target, Plan.ask(batch), content_type=LINES) == len(ASKED) + 3
    lines = [json.loads(line) for line in target.open("rb")]
    assert [line["error"]["type"] for line in lines[-3:-1]] == ["invalid_request"] * 2
    assert lines[-1]["passages"][0]["doc_id"] == "en/kettle.md"


def test_item_30_chunked_requests_work(batch: Any, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    plan = Plan.ask(batch, max_payload_mb=0)
    assert transform(batch, source, target, plan, content_type=LINES) == len(ASKED)

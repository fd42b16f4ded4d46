from __future__ import annotations

import io
import json

from indexer.progress import JsonLines, Silent, make_progress


def test_elsewhere_than_a_terminal_every_line_is_json() -> None:
    stream = io.StringIO()
    progress = make_progress(stream)
    with progress.stage("embed", 3) as step:
        step.advance(2)
        step.advance()
    progress.note("끝", version="abc")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["stage started", "stage finished", "끝"]
    assert lines[1]["total"] == 3
    assert lines[2]["version"] == "abc"


def test_long_stages_report_now_and_then() -> None:
    stream = io.StringIO()
    with JsonLines(stream, every_s=0.0).stage("embed", 2) as step:
        step.advance()
    assert '"done": 1' in stream.getvalue()


def test_quiet_is_silent() -> None:
    assert isinstance(make_progress(io.StringIO(), quiet=True), Silent)

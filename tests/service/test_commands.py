"""`rag search` and `rag ask`, as people type them, on a bundle and on a running service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def rag(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rag", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_search_shows_both_legs(sample_bundle: Path) -> None:
    done = rag("search", "SIGTERM and SIGKILL", "--bundle", str(sample_bundle), "--top-k", "3")
    assert done.returncode == 0, done.stderr
    assert "[1]" in done.stdout
    assert "dense #" in done.stdout
    assert "sparse #" in done.stdout
    assert "torch" not in done.stderr


def test_ask_answers_with_citations_in_both_languages(sample_bundle: Path) -> None:
    for question, expected in (
        ("How long is it between SIGTERM and SIGKILL on SageMaker hosting?", "30"),
        ("형태소 분석의 장점은 무엇인가요?", "형태소"),
    ):
        done = rag("ask", question, "--bundle", str(sample_bundle), "--json")
        assert done.returncode == 0, done.stderr
        reply = json.loads(done.stdout)
        assert expected in reply["answer"]
        assert reply["citations"]
        for citation in reply["citations"]:
            assert reply["answer"][citation["start"] : citation["end"]].strip()
            assert all(1 <= n <= len(reply["passages"]) for n in citation["passages"])


def test_a_question_that_nothing_answers_is_not_answered(sample_bundle: Path) -> None:
    done = rag(
        "ask", "What is the population of Iceland?", "--bundle", str(sample_bundle), "--json"
    )
    reply = json.loads(done.stdout)
    assert reply["citations"] == []


def test_filters_reach_the_search(sample_bundle: Path) -> None:
    where = '{"lang": {"$eq": "ko"}, "format": "pdf"}'
    done = rag("search", "index", "--bundle", str(sample_bundle), "--filter", where, "--json")
    passages = json.loads(done.stdout)["passages"]
    assert passages
    assert all(p["doc_id"].startswith("ko/") and p["page"] >= 1 for p in passages)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["search", "x", "--bundle", "/no/such/folder"], "/no/such/folder"),
        (["search", "x", "--url", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["search", "x", "--url", "http://127.0.0.1:9", "--bundle", "y"], "--bundle and --url"),
        (["ask", "x", "--bundle", "y", "--filter", "{"], "--filter is not JSON"),
        (["serve", "--bundle", "y", "--log-level", "LOUD"], "LOG_LEVEL"),
        (["serve", "--nonsense"], "--nonsense"),
    ],
)
def test_mistakes_are_one_line(words: list[str], named: str) -> None:
    done = rag(*words)
    assert done.returncode in (1, 2)
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

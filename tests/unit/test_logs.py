"""Every log line is one JSON object, whatever goes into it."""

from __future__ import annotations

import io
import json
import logging

import pytest

from rag import logs


@pytest.fixture
def stream() -> io.StringIO:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    logs.configure("INFO", stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_carries_its_extra_fields(stream: io.StringIO) -> None:
    logging.getLogger("a.b").info("%d 한국어\n끝", 3, extra={"request_id": "r-1", "odd": {1, 2}})
    (line,) = lines(stream)
    assert line.pop("time")
    assert line == {
        "level": "INFO", "logger": "a.b", "message": "3 한국어\n끝", "request_id": "r-1",
        "odd": "{1, 2}",
    }  # fmt: skip


def test_lines_carry_what_they_are_about(stream: io.StringIO) -> None:
    logs.note(key="nobody's")
    with logs.about(request_id="r-1"):
        logs.note(key="team-a")
        logging.getLogger("a").info("one")
        with logs.about(request_id="r-1-2"):
            logging.getLogger("a").info("two", extra={"key": "own"})
    logging.getLogger("a").info("three")
    one, two, three = lines(stream)
    assert (one["request_id"], one["key"]) == ("r-1", "team-a")
    assert (two["request_id"], two["key"]) == ("r-1-2", "own")
    assert "request_id" not in three


def test_a_traceback_stays_on_its_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("a").exception("failed")
    (line,) = lines(stream)
    assert "ValueError: broken" in str(line["exception"])


def test_text_that_is_not_unicode_is_logged_all_the_same(stream: io.StringIO) -> None:
    logging.getLogger("a").warning("half \ud83d of a pair")
    (line,) = lines(stream)
    assert line["message"] == "half \ud83d of a pair"


def test_below_the_level_nothing_is_written(stream: io.StringIO) -> None:
    logging.getLogger("a").debug("no")
    for library in ("httpx", "httpx2"):
        logging.getLogger(library).info("GET http://endpoint/?key=secret")
    assert stream.getvalue() == ""

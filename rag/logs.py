"""Logging set-up: one JSON object a line on standard error, whatever the terminal."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

_about: ContextVar[dict[str, object] | None] = ContextVar("about", default=None)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonLines(logging.Formatter):
    """Formats a record as one line: time (UTC), level, logger, message, then its extra fields and
    those of `about`.

    A traceback is one string, `exception`. Values that JSON does not know are sent as text.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(_about.get() or {})
        line.update((k, v) for k, v in vars(record).items() if k not in _STANDARD)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = json.dumps(line, default=repr, ensure_ascii=False)
        # Half of a surrogate pair becomes \udXXX, which JSON can read back.
        return text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Adds `fields` to every line that this task, and tasks begun in it, log meanwhile."""
    within = (_about.get() or {}) | fields
    token = _about.set(within)
    try:
        yield
    finally:
        _about.reset(token)


def note(**fields: object) -> None:
    """Adds `fields` to the lines of the innermost `about`, if there is one."""
    within = _about.get()
    if within is not None:
        within.update(fields)


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Sends every logger's lines of at least `level` to `stream` (standard error), as JSON.

    Called once by a program's entry point, never by a library.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    # Their lines at INFO tell of every call made, or of nothing at all.
    for chatty in (
        "faiss", "httpcore", "httpcore2", "httpx", "httpx2", "openai", "urllib3", "uvicorn",
    ):  # fmt: skip
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))

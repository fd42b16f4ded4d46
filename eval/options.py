"""What the commands share: the console, headers, files that they write."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rag.errors import ConfigurationError

ApiKey = Annotated[
    str | None, typer.Option(envvar="RAG_EVAL_API_KEY", help="Key of the endpoints.")
]


def make_console() -> Console:
    """Where results are printed."""
    # A pipe has no width: tables should not be cut to a terminal's 80 columns there.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
    return Console(highlight=False, width=width)


def given(**options: Any) -> dict[str, Any]:
    """The options that were given: those that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def parse_headers(lines: list[str]) -> dict[str, str]:
    """The headers in 'Name: value' lines; raises ConfigurationError."""
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ConfigurationError(f"--header {line!r} is not 'Name: value'; write it like that")
        headers[name.strip()] = value.strip()
    return headers


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes `value` as JSON for people; folders above the file are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

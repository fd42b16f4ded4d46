"""What `rag-indexer build` says of the dense index, checked and read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rag.errors import ConfigurationError

_UNITS = {
    "": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
}  # fmt: skip
QUERY_FIELDS = ("query", "text")


def dense_options(
    index: str,
    *,
    storage: str | None = None,
    refine: str | None = None,
    memory_budget: str | None = None,
    recall_target: float | None = None,
) -> dict[str, Any]:
    """The arguments of `build_chosen`; raises ConfigurationError."""
    given = {
        "storage": storage,
        "refine": refine,
        "memory_budget": None if memory_budget is None else parse_bytes(memory_budget),
        "recall_target": recall_target,
    }
    return {"kind": index} | {name: value for name, value in given.items() if value is not None}


def parse_bytes(text: str) -> int:
    """Bytes of '500MB', '4 GiB' or a plain number; raises ConfigurationError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        raise ConfigurationError(f"'{text}' is no size; write it as 500MB, 4GiB or 4000000000")
    return round(float(match[1]) * _UNITS[match[2].upper()])


def read_queries(path: Path) -> list[str]:
    """One query a line: JSON Lines with a field 'query' or 'text' where the name ends in .jsonl,
    else plain text. Raises ConfigurationError naming the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}; name a text file") from None
    if path.suffix == ".jsonl":
        lines = [_query(line, f"{path}:{i}") for i, line in enumerate(lines, 1) if line.strip()]
    queries = [line.strip() for line in lines if line.strip()]
    if not queries:
        raise ConfigurationError(f"{path} holds no queries; write one a line")
    return queries


def _query(line: str, where: str) -> str:
    try:
        value = json.loads(line)
    except ValueError:
        raise ConfigurationError(f"{where} is not JSON; write one object a line") from None
    for name in QUERY_FIELDS:
        if isinstance(value, dict) and isinstance(value.get(name), str):
            return str(value[name])
    raise ConfigurationError(f"{where} has no text in 'query' or 'text'")

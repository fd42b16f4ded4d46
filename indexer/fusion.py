"""The fusion that a build seals: JSON from the command line or from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rag.errors import ConfigurationError, InvalidRequest
from rag.retrieval.fusion import make_fusion


def parse_fusion(option: str) -> dict[str, Any]:
    """The fusion in `option`: a JSON object, or the path of a file that holds one, with or without
    '@' before it.

    Raises ConfigurationError for a file that cannot be read, for what is not JSON, and for a
    fusion that there is not.
    """
    text = option.strip()
    if not text.startswith("{"):
        text = _read(Path(text.removeprefix("@")))
    try:
        fusion = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"--fusion is not JSON ({error}); give an object") from None
    if not isinstance(fusion, dict):
        raise ConfigurationError(f"--fusion is {text.strip()[:60]!r}; give a JSON object")
    try:
        make_fusion(fusion)
    except InvalidRequest as error:
        raise ConfigurationError(f"--fusion cannot be sealed: {error}") from None
    return fusion


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"--fusion file {path} cannot be read ({error.strerror}); check the path"
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"--fusion file {path} is not UTF-8; convert it") from None

"""Lists of the objects to index: SageMaker manifest files, and plain lists of keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rag.errors import ConfigurationError
from rag.storage import open_store


def listed_keys(uri: str, root: str) -> list[str]:
    """The keys below `root` that the list at `uri` names, sorted, each once.

    A list is a SageMaker manifest (`[{"prefix": "s3://bucket/folder/"}, "a.pdf", …]`), an
    augmented one (a JSON object with `source-ref` on each line), or one key or URI on each line.
    Raises ConfigurationError for anything else, and for a URI that is not below `root`.
    """
    folder, _, name = uri.rpartition("/")
    data, _ = open_store(folder or ".").read(name)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"the list {uri} is not UTF-8 text") from None
    return sorted({_below(name, root, uri) for name in _names(text, uri)})


def _names(text: str, uri: str) -> Iterator[str]:
    if text.lstrip().startswith("["):
        yield from _manifest(text, uri)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if line.startswith("{"):
            value = _json(line, f"{uri}, line {number},")
            if not isinstance(value.get("source-ref"), str):
                raise ConfigurationError(f"{uri}, line {number}, has no 'source-ref'")
            yield value["source-ref"]
        elif line and not line.startswith("#"):
            yield line


def _manifest(text: str, uri: str) -> Iterator[str]:
    entries = _json(text, uri)
    first = entries[0] if entries else None
    if not isinstance(first, dict) or not isinstance(first.get("prefix"), str):
        raise ConfigurationError(f'{uri} does not begin with {{"prefix": "s3://…"}}')
    for entry in entries[1:]:
        if not isinstance(entry, str):
            raise ConfigurationError(f"{uri} names {json.dumps(entry)[:60]}, which is no key")
        yield first["prefix"] + entry


def _below(name: str, root: str, uri: str) -> str:
    base = root.rstrip("/") + "/"
    if "://" not in name and not name.startswith("/"):
        return name
    if not name.startswith(base):
        raise ConfigurationError(
            f"{uri} names {name}, which is not below the source {root}; name a source above all"
        )
    return name.removeprefix(base)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{where} is not JSON ({error})") from None

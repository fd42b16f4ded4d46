"""The header of a Markdown file: YAML between '---', TOML between '+++', or bare 'key: value'."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

import yaml

_YAML = re.compile(r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_TOML = re.compile(r"\A\+\+\+[ \t]*\n(.*?)^\+\+\+[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
# Some collections leave the opening line out: 'importance: 5', an empty line, '---'.
_BARE = re.compile(r"\A((?:[A-Za-z][\w-]*:[^\n]*\n)+)\n*---[ \t]*(?:\n|\Z)")
_MAX_HEADER = 65_536


def split_front_matter(text: str) -> tuple[Mapping[Any, Any], str]:
    """The header's values and the text below it.

    What merely looks like a header (a rule at the top, invalid YAML) is no header: it stays text.
    """
    text = text.lstrip("\n")
    head = text[:_MAX_HEADER]
    for pattern, load in ((_YAML, _load_yaml), (_TOML, _load_toml), (_BARE, _load_yaml)):
        match = pattern.match(head)
        if match is None:
            continue
        values = load(match[1])
        if values is not None:
            return values, text[match.end() :]
    return {}, text


def _load_yaml(source: str) -> Mapping[Any, Any] | None:
    try:
        values = yaml.safe_load(source)
    except (yaml.YAMLError, ValueError):  # ValueError: a date such as 2024-13-45
        return None
    if values is None:
        return {}
    return values if isinstance(values, dict) else None


def _load_toml(source: str) -> Mapping[Any, Any] | None:
    try:
        return tomllib.loads(source)
    except tomllib.TOMLDecodeError:
        return None

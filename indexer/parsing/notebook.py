"""Jupyter notebooks: Markdown cells as Markdown, code cells as code with their text output."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from indexer.parsing import markdown
from indexer.parsing.builder import DocumentBuilder
from indexer.parsing.encoding import decode
from indexer.parsing.text import add_paragraphs
from rag.errors import UnreadableDocument

_MAX_OUTPUT = 2_000  # characters; longer outputs are logs and dumps


def parse(data: bytes, builder: DocumentBuilder) -> None:
    """Adds the cells of the notebook in `data`; `title` and `authors` of its metadata count."""
    try:
        notebook = json.loads(decode(data))
    except json.JSONDecodeError as error:
        raise UnreadableDocument(f"it is not valid JSON: {error}") from error
    cells = notebook.get("cells") if isinstance(notebook, Mapping) else None
    if not isinstance(cells, list):
        raise UnreadableDocument("it has no list of cells (nbformat 4 is supported)")
    about = notebook.get("metadata")
    if isinstance(about, Mapping) and isinstance(about.get("title"), str):
        builder.title = about["title"]
    for cell in cells:
        if not isinstance(cell, Mapping):
            continue
        source = _joined(cell.get("source"))
        if cell.get("cell_type") == "markdown":
            markdown.parse_text(source, builder)
        elif cell.get("cell_type") == "code":
            builder.code(source)
            for output in cell.get("outputs") or ():
                builder.code(_output_text(output)[:_MAX_OUTPUT])
        else:
            add_paragraphs(source, builder)


def _output_text(output: Any) -> str:
    if not isinstance(output, Mapping):
        return ""
    if "text" in output:
        return _joined(output["text"])
    data = output.get("data")
    return _joined(data.get("text/plain")) if isinstance(data, Mapping) else ""


def _joined(value: object) -> str:
    """A text that the format lets be a list of lines."""
    if isinstance(value, str):
        return value
    return "".join(map(str, value)) if isinstance(value, Sequence) else ""

"""`rag-indexer report`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from rag.errors import ConfigurationError

HELP = """Write a page about a bundle: its documents and those left out, passages, index, times.

URI is a bundle's folder, or the folder or s3:// prefix that a build wrote to. The page is one HTML
file that needs nothing else.

Example:  rag-indexer report ./bundle --out report.html
"""


def report(
    uri: Annotated[str, typer.Argument(help="Bundle folder, or the root a build wrote to.")],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("report.html"),
) -> None:
    from indexer.report_page import report_page

    if not out.parent.is_dir():
        raise ConfigurationError(f"{out.parent} is not a folder; make it, or name another --out")
    with tempfile.TemporaryDirectory(prefix="rag-report-") as cache:
        page = report_page(uri, Path(cache))
    out.write_text(page, encoding="utf-8")
    print(out)

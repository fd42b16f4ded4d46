"""`rag-indexer verify`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

HELP = """Check every byte of a bundle, and that its encoder still gives its golden vectors.

URI is a bundle's folder, or the folder or s3:// prefix that a build wrote to.

Example:  rag-indexer verify ./bundle
"""


def verify(
    uri: Annotated[str, typer.Argument(help="Bundle folder, or the root a build wrote to.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object.")
    ] = False,
) -> None:
    from indexer.verify import verify as check

    with tempfile.TemporaryDirectory(prefix="rag-verify-") as cache:
        result = check(uri, Path(cache))
    if as_json:
        print(json.dumps(result))
        return
    files, size = result["files"], result["bytes"]
    print(f"{uri}: version {result['version']} is whole")
    print(f"  {files} files, {size:,} bytes: every checksum right")
    print(f"  {result['documents']} documents, {result['chunks']} passages, on both legs")
    for precision, cosine in result["golden"].items():
        print(f"  encoder {precision}: golden vectors reproduced, worst cosine {cosine:.6f}")

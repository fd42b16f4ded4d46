"""`rag-indexer prune-vectors`: a vector cache made small and tidy again."""

from __future__ import annotations

import json
from typing import Annotated

import typer

HELP = """Merge the small objects of a vector cache, and drop its oldest vectors beyond a size.

CACHE is what build has as --vector-cache. Builds may use it meanwhile, and a run that is killed
loses no vector that stays: run it again. What was dropped is computed again where a build needs it.

Example:  rag-indexer prune-vectors s3://bucket/vectors --max-mib 20480
"""


def prune_vectors(
    cache: Annotated[str, typer.Argument(help="Folder or s3:// prefix of the cache.")],
    max_mib: Annotated[
        int | None, typer.Option(min=0, help="Most that stays, in MiB (default: no limit).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object.")
    ] = False,
) -> None:
    from indexer.incremental.vector_compaction import compact, plan

    limit = None if max_mib is None else max_mib * 2**20
    done = plan(cache, limit) if dry_run else compact(cache, limit)
    result = {
        "cache": cache,
        "dry_run": dry_run,
        "dropped": len(done.dropped),
        "dropped_bytes": sum(info.size for info in done.dropped),
        "merged": sum(map(len, done.merged)),
        "objects": len(done.kept) + len(done.merged),
        "bytes": done.size,
    }
    if as_json:
        print(json.dumps(result))
        return
    print(
        f"{cache}: {result['dropped']} objects {'would be ' if dry_run else ''}dropped"
        f" ({result['dropped_bytes']:,} bytes), {result['merged']} merged into"
        f" {len(done.merged)}; {result['objects']} objects stay, {result['bytes']:,} bytes or less"
    )

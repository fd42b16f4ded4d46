"""`rag-indexer fsck | explain | diff`: what is wrong, how it came about, what changed."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from indexer.commands.columns import (
    IdColumn,
    MetadataColumns,
    TextColumn,
    TitleColumn,
    corpus_columns,
)

FSCK_HELP = """Check that all parts of a bundle fit together; exit 1 if they do not.

URI is a bundle's folder or a root, also on s3://. Manifest, files, documents, passages, rows of
both legs and the encoder are reconciled; of a root also CURRENT, pins and half-written versions.
With --repair, damaged files come from a healthy copy (--from), the legs are built again from the
passages, and remains of interrupted runs go.

--database names an external database that holds one row for each passage of
the version, and compares: all ids, and the contents of --sample rows. With
--repair the contents of all are compared, and rows are written and deleted
until it holds what the bundle does; that is also how it is filled the first
time. The table belongs to one bundle or root: whatever else it holds goes.
WEAVIATE_API_KEY is Weaviate's key; PGPASSWORD or ~/.pgpass has PostgreSQL's
password.

Example:  rag-indexer fsck s3://bucket/index --repair --from ./bundle

Example:  rag-indexer fsck ./bundle --database weaviate+https://host/Passages
"""
EXPLAIN_HELP = """Show how a document becomes its chunks.

Each chunk with its characters, tokens, headings and context, and why it ends where it does. DOC is
a file. With --bundle, encoder and chunker are the bundle's, and chunks that it does not hold are
marked; the document is the one whose id ends DOC's path, or --doc-id. With --text-column DOC is a
text corpus, as for build, and the document its row --doc-id.

Example:  rag-indexer explain handbook.pdf --bundle ./bundle
"""
DIFF_HELP = """Show what changed from bundle A to bundle B: settings, documents, passages, sizes.

Each is a bundle's folder, a root (its current version), or ROOT/versions/ID, also on s3://.

Example:  rag-indexer diff s3://bucket/index/versions/082a… s3://bucket/index
"""
SHOWN = 20

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def fsck(
    uri: Annotated[str, typer.Argument(help="Bundle folder, or a root, also on s3://.")],
    version: Annotated[
        str | None, typer.Option(help="Version of a root (default: the current one).")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
    healthy: Annotated[
        str | None, typer.Option("--from", help="Bundle or root with a healthy copy.")
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="External database to compare: weaviate+http(s)://host/Collection,"
            " postgresql://user@host/database?table=name.",
        ),
    ] = None,
    sample: Annotated[
        int,
        typer.Option(help="Passages that are embedded and analysed again, and compared in full."),
    ] = 64,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the result.")] = False,
) -> None:
    from indexer.audit.fsck import run_fsck
    from indexer.external.opening import table_opener
    from indexer.progress import make_progress

    result = run_fsck(
        uri, version, repair=repair, healthy=healthy, sample=sample,
        progress=make_progress(quiet=quiet),
        database=None if database is None else table_opener(database, os.environ),
    )  # fmt: skip
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        for finding in result["findings"]:
            where = f" {finding['file']}" if finding["file"] else ""
            print(f"{finding['part']}{where}: {finding['problem']}")
        if result["repaired"]:
            print(f"mended: {', '.join(result['repaired'])}")
        compared = result["database"]
        if compared and compared["rows"] is not None:
            print(
                f"{compared['name']}: {compared['rows']:,} rows; all ids were compared, and the"
                f" contents of {compared['compared']:,}"
            )
        state = "whole" if result["whole"] else "NOT whole"
        print(f"{uri}: version {result['version']} is {state}")
    if not result["whole"]:
        raise typer.Exit(1)


def explain(
    doc: Annotated[Path, typer.Argument(help="The document's file.")],
    bundle: Annotated[
        str | None, typer.Option(help="Bundle or root whose encoder and chunker are taken.")
    ] = None,
    doc_id: Annotated[
        str | None,
        typer.Option(help="The document's id (default: its file name); of a corpus, the row's."),
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="Model, without --bundle: 'default', a folder, or a hub id.")
    ] = "default",
    chunk_size: Annotated[
        int | None, typer.Option(help="Largest chunk in the encoder's tokens, without --bundle.")
    ] = None,
    chunk_overlap: Annotated[
        int | None, typer.Option(help="Tokens that neighbours may share, without --bundle.")
    ] = None,
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    title_column: TitleColumn = None,
    metadata_columns: MetadataColumns = None,
    as_json: Json = False,
) -> None:
    from indexer.audit.explain_command import explain_file

    given = {"size": chunk_size, "overlap": chunk_overlap}
    options = {name: value for name, value in given.items() if value is not None}
    result = explain_file(
        doc, bundle=bundle, doc_id=doc_id, encoder=encoder, options=options,
        columns=corpus_columns(text_column, id_column, title_column, metadata_columns),
    )  # fmt: skip
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        _show_explanation(result)


def diff(
    a: Annotated[str, typer.Argument(help="The bundle before.")],
    b: Annotated[str, typer.Argument(help="The bundle after.")],
    as_json: Json = False,
) -> None:
    from indexer.audit.difference import difference, open_side

    with tempfile.TemporaryDirectory(prefix="rag-diff-") as work:
        left, right = Path(work, "a"), Path(work, "b")
        result = difference(open_side(a, left), open_side(b, right))
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        _show_difference(result)


def _show_explanation(result: dict[str, Any]) -> None:
    document, encoder = result["document"], result["encoder"]
    print(
        f"{document['doc_id']}: '{document['title']}', {document['format']},"
        f" {document['language']}, {document['characters']:,} characters in"
        f" {document['blocks']} blocks, {len(result['chunks'])} chunks"
    )
    options = ", ".join(f"{name} {value}" for name, value in result["chunker"].items())
    print(f"chunker: {options}; {encoder['name']} reads {encoder['max_tokens']} tokens")
    for chunk in result["chunks"]:
        page = f", page {chunk['page']}" if chunk["page"] else ""
        held = "" if chunk.get("in_bundle", True) else "  NOT in the bundle"
        print(
            f"\n#{chunk['number']}  characters {chunk['start']}-{chunk['end']}{page},"
            f" {chunk['tokens']} tokens ({chunk['text_tokens']} of text)  {chunk['chunk_id']}{held}"
        )
        if chunk["headings"]:
            print(f"   under    {' > '.join(chunk['headings'])}")
        if chunk["context"]:
            print(f"   context  {_short(chunk['context'])}")
        print(f"   text     {_short(chunk['text'])}")
        print(f"   ends     {chunk['ends_because']}")


def _show_difference(result: dict[str, Any]) -> None:
    documents, chunks = result["documents"], result["chunks"]
    print(f"{result['a']} -> {result['b']}")
    for name, (before, after) in result["settings"].items():
        print(f"  setting {name}: {before} -> {after}")
    print(
        f"  documents {documents['before']:,} -> {documents['after']:,}:"
        f" {len(documents['added'])} added, {len(documents['changed'])} changed,"
        f" {len(documents['deleted'])} deleted"
    )
    _show_some("+", documents["added"])
    changed = [
        f"{doc_id} ({', '.join(c['what'])}; passages +{c['chunks_added']} -{c['chunks_removed']})"
        for doc_id, c in documents["changed"].items()
    ]
    _show_some("~", changed)
    _show_some("-", documents["deleted"])
    print(
        f"  passages {chunks['before']:,} -> {chunks['after']:,}: {chunks['added']} added,"
        f" {chunks['removed']} removed, {chunks['kept']} kept"
    )
    before, after = result["sizes"]["before"], result["sizes"]["after"]
    for part in sorted(before.keys() | after.keys()):
        x, y = before.get(part, 0), after.get(part, 0)
        print(f"  {part:<12} {x:>15,} -> {y:>15,} bytes")


def _show_some(mark: str, lines: list[str]) -> None:
    for line in lines[:SHOWN]:
        print(f"    {mark} {line}")
    if len(lines) > SHOWN:
        print(f"    {mark} … {len(lines) - SHOWN} more; --json shows all")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:64]} … {line[-32:]}"

"""What to explain, a file or a row of a corpus, and with what: a bundle's own encoder and chunker,
or given ones.
"""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indexer.audit.checks import all_ids
from indexer.audit.explain import explain
from indexer.chunking import ChunkerOptions
from indexer.parsing import parse, parse_row
from indexer.sidecar import SIDECAR, sidecar_metadata
from indexer.source.corpus import CorpusColumns, Row, corpus_format, read_rows
from rag.errors import ConfigurationError, UnreadableDocument
from rag.index.bundle import Bundle, open_bundle
from rag.models.encoder import EncoderConfig, resolve
from rag.types import Document, Metadata


def explain_file(
    path: Path,
    *,
    bundle: str | None,
    doc_id: str | None,
    encoder: str,
    options: Mapping[str, Any],
    columns: CorpusColumns | None = None,
) -> dict[str, Any]:
    """`explain` of a file, or, with `columns`, of that row of a text corpus whose id is `doc_id`;
    with a bundle, each chunk says whether it is `in_bundle`.

    Raises DocumentError for what cannot be read, ConfigurationError.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path} is not a file")
    row = None if columns is None else _row(path, doc_id, columns)
    if bundle is None:
        folder = resolve(encoder)
        name = doc_id or unicodedata.normalize("NFC", path.name)
        return explain(
            _document(path, name, name, row), encoder=folder,
            config=EncoderConfig.read(folder), options=ChunkerOptions(**options),
        )  # fmt: skip
    if options or encoder != "default":
        raise ConfigurationError("--encoder and --chunk-… go without --bundle, which has its own")
    with tempfile.TemporaryDirectory(prefix="rag-explain-") as cache:
        opened = open_bundle(bundle, cache_dir=Path(cache), verify=False)
        name = doc_id or _find(opened, path)
        record = opened.store.record(name)
        result = explain(
            _document(path, name, record.uri if record else name, row),
            encoder=opened.encoder_folder, config=EncoderConfig.read(opened.encoder_folder),
            options=_chunker(opened),
        )  # fmt: skip
        held = set(all_ids(opened.store))
    for chunk in result["chunks"]:
        chunk["in_bundle"] = chunk["chunk_id"] in held
    return result


def _row(path: Path, doc_id: str | None, columns: CorpusColumns) -> Row:
    """The corpus's row of this id."""
    if corpus_format(path.name) is None:
        raise ConfigurationError(f"{path} is no corpus: give a JSON Lines or Parquet file")
    if doc_id is None:
        raise ConfigurationError("name the row that is to be explained: --doc-id")
    for row in read_rows(path, path.name, columns):
        if unicodedata.normalize("NFC", row.id) == doc_id:
            if row.problem is not None:
                raise UnreadableDocument(f"{doc_id}: {row.problem}")
            return row
    raise ConfigurationError(f"{path} has no row '{doc_id}'; check --doc-id and --id-column")


def _document(path: Path, name: str, uri: str, row: Row | None) -> Document:
    if row is None:
        return parse(path.read_bytes(), doc_id=name, uri=uri, extra=_sidecar(path))
    return parse_row(
        row.text, doc_id=name, uri=uri, title=row.title,
        format_name=corpus_format(path.name) or "", extra=row.metadata or {},
    )  # fmt: skip


def _chunker(bundle: Bundle) -> ChunkerOptions:
    known = ("size", "overlap", "min_size", "context")
    return ChunkerOptions(**{n: bundle.manifest.chunker[n] for n in known})


def _find(bundle: Bundle, path: Path) -> str:
    """The one document of the bundle whose id is the end of the file's path."""
    whole = unicodedata.normalize("NFC", path.absolute().as_posix())
    found = [r.doc_id for r in bundle.store.records() if whole.endswith(f"/{r.doc_id}")]
    return max(found, key=len) if found else unicodedata.normalize("NFC", path.name)


def _sidecar(path: Path) -> Metadata:
    beside = path.with_name(path.name + SIDECAR)
    return sidecar_metadata(beside.read_bytes(), path.name) if beside.is_file() else {}

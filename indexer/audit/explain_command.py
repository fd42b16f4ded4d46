"""What to explain a file with: a bundle's own encoder and chunker, or given ones."""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indexer.audit.checks import all_ids
from indexer.audit.explain import explain
from indexer.chunking import ChunkerOptions
from indexer.sidecar import SIDECAR, sidecar_metadata
from rag.errors import ConfigurationError
from rag.index.bundle import Bundle, open_bundle
from rag.models.encoder import EncoderConfig, resolve
from rag.types import Metadata


def explain_file(
    path: Path, *, bundle: str | None, doc_id: str | None, encoder: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """`explain` of a file; with a bundle, each chunk says whether it is `in_bundle`."""
    if not path.is_file():
        raise ConfigurationError(f"{path} is not a file")
    data = path.read_bytes()
    if bundle is None:
        folder = resolve(encoder)
        name = doc_id or unicodedata.normalize("NFC", path.name)
        return explain(
            data, doc_id=name, uri=name, extra=_sidecar(path), encoder=folder,
            config=EncoderConfig.read(folder), options=ChunkerOptions(**options),
        )  # fmt: skip
    if options or encoder != "default":
        raise ConfigurationError("--encoder and --chunk-… go without --bundle, which has its own")
    with tempfile.TemporaryDirectory(prefix="rag-explain-") as cache:
        opened = open_bundle(bundle, cache_dir=Path(cache), verify=False)
        name = doc_id or _find(opened, path)
        record = opened.store.record(name)
        result = explain(
            data, doc_id=name, uri=record.uri if record else name, extra=_sidecar(path),
            encoder=opened.encoder_folder, config=EncoderConfig.read(opened.encoder_folder),
            options=_chunker(opened),
        )  # fmt: skip
        held = set(all_ids(opened.store))
    for chunk in result["chunks"]:
        chunk["in_bundle"] = chunk["chunk_id"] in held
    return result


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

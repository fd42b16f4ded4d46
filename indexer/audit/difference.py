"""What changed between two bundles: settings, documents, passages, sizes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.audit.checks import all_ids, part_of
from indexer.audit.merging import side_by_side
from rag.index.chunks import ChunkStore, DocumentRecord
from rag.index.fetching import bundle_store, locate, remote_manifest
from rag.index.manifest import NAME, Manifest
from rag.index.seal import read_manifest
from rag.storage import is_remote

_SETTINGS = ("format", "encoder", "analyzer", "chunker", "dense", "sparse", "fusion")
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two bundles: its manifest and its passages."""

    manifest: Manifest
    store: ChunkStore


def open_side(uri: str, work: Path) -> Side:
    """A bundle's manifest and passages; of a remote one nothing else is copied, into `work`."""
    if not is_remote(uri):
        folder = locate(uri)
        return Side(read_manifest(folder), ChunkStore.open(folder))
    place = bundle_store(uri)
    manifest = remote_manifest(place)
    folder = work / manifest.version
    folder.mkdir(parents=True)
    for name in ("chunks.arrow", "documents.arrow"):
        place.download(name, folder / name)
    (folder / NAME).write_bytes(manifest.to_bytes())
    return Side(manifest, ChunkStore.open(folder))


def difference(a: Side, b: Side) -> dict[str, Any]:
    """From `a` to `b`, as plain data: `settings` (name -> [a's, b's]), `documents` (added,
    deleted: ids; changed: id -> what changed, chunks added and removed), `chunks` and `sizes`
    (bytes by part).
    """
    only_a, only_b, kept = _apart(all_ids(a.store), all_ids(b.store))
    removed, added = _by_document(a.store, only_a), _by_document(b.store, only_b)
    records_a = {record.doc_id: record for record in a.store.records()}
    records_b = {record.doc_id: record for record in b.store.records()}
    changed = {}
    for doc_id in sorted(records_a.keys() & records_b.keys()):
        what = _what(records_a[doc_id], records_b[doc_id])
        if what or doc_id in removed or doc_id in added:
            changed[doc_id] = {
                "what": what or ["chunks"],
                "chunks_added": added.get(doc_id, 0),
                "chunks_removed": removed.get(doc_id, 0),
            }
    settings_a, settings_b = _settings(a.manifest), _settings(b.manifest)
    names = sorted(settings_a.keys() | settings_b.keys())
    return {
        "a": a.manifest.version,
        "b": b.manifest.version,
        "settings": {
            name: [settings_a.get(name), settings_b.get(name)]
            for name in names
            if settings_a.get(name) != settings_b.get(name)
        },
        "documents": {
            "before": len(records_a),
            "after": len(records_b),
            "added": sorted(records_b.keys() - records_a.keys()),
            "deleted": sorted(records_a.keys() - records_b.keys()),
            "changed": changed,
        },
        "chunks": {
            "before": a.store.rows,
            "after": b.store.rows,
            "added": len(only_b),
            "removed": len(only_a),
            "kept": kept,
        },
        "sizes": {"before": _sizes(a.manifest), "after": _sizes(b.manifest)},
    }


def _apart(a: Iterable[str], b: Iterable[str]) -> tuple[list[int], list[int], int]:
    """The rows that only one of two ascending sequences has, and how many both have."""
    only_a, only_b, both = [], [], 0
    for pair in side_by_side(a, b):
        if pair.right is None and pair.left is not None:
            only_a.append(pair.left)
        elif pair.left is None and pair.right is not None:
            only_b.append(pair.right)
        else:
            both += 1
    return only_a, only_b, both


def _by_document(store: ChunkStore, rows: list[int]) -> Mapping[str, int]:
    found: Counter[str] = Counter()
    for start in range(0, len(rows), _BLOCK):
        block = np.array(rows[start : start + _BLOCK], dtype=np.int64)
        found.update(chunk.doc_id for chunk in store.chunks(block))
    return found


def _what(a: DocumentRecord, b: DocumentRecord) -> list[str]:
    pairs = {
        "content": (a.sha256, b.sha256),
        "uri": (a.uri, b.uri),
        "title": (a.title, b.title),
        "language": (a.lang, b.lang),
        "metadata": (a.metadata, b.metadata),
    }
    return [name for name, (x, y) in pairs.items() if x != y]


def _settings(manifest: Manifest) -> dict[str, Any]:
    """Every setting by its dotted name; counts are no settings."""
    return {
        name: value
        for part in _SETTINGS
        for name, value in _flat(part, getattr(manifest, part))
        if ".counts." not in name
    }


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    else:
        yield name, value


def _sizes(manifest: Manifest) -> dict[str, int]:
    sizes: dict[str, int] = defaultdict(int)
    for name, entry in manifest.files.items():
        sizes[part_of(name)] += entry.size
    return dict(sorted(sizes.items()))

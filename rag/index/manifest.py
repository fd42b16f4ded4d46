"""The manifest: what a bundle is, in one canonical JSON file that is written last.

Canonical JSON here: UTF-8, keys sorted, no white space between tokens, no NaN; then one line
break. The version id is a digest of what went in, never of output bytes.
"""

from __future__ import annotations

import hashlib
import json
from binascii import hexlify
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rag.errors import BundleCorrupt, BundleMissing, BundleTooNew

FORMAT = 1
"""Raised whenever an older reader would misread a bundle."""
NAME = "manifest.json"
CLAIM = "claim"
"""Key of the object that lies in the manifest's place while a version is being published."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the bundle: bytes, and SHA-256 as 64 hex digits."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """`files` maps each path below the bundle ('/' separated) to its entry; the manifest itself
    is not among them. `encoder`, `analyzer`, `chunker`, `dense`, `sparse` and `fusion` are the
    references that decide the bundle together with the chunk ids. `counts` has at least
    documents, chunks, terms, skipped. `measured` holds what was measured while building (int8
    cosine, recall tables) and `source` where the documents came from; neither enters the version.
    """

    version: str
    counts: Mapping[str, int]
    encoder: Mapping[str, Any]
    analyzer: Mapping[str, Any]
    chunker: Mapping[str, Any]
    dense: Mapping[str, Any]
    sparse: Mapping[str, Any]
    fusion: Mapping[str, Any]
    chunks_digest: str
    files: Mapping[str, FileEntry]
    measured: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    program: str = ""
    format: int = FORMAT

    def to_bytes(self) -> bytes:
        return canonical(asdict(self))

    def identity(self) -> str:
        """The version id that this manifest's contents demand."""
        return version_id(
            self.chunks_digest, encoder=self.encoder, analyzer=self.analyzer,
            chunker=self.chunker, dense=self.dense, sparse=self.sparse, fusion=self.fusion,
            format=self.format,
        )  # fmt: skip


def canonical(value: Any) -> bytes:
    """Canonical JSON of `value`; raises ValueError for NaN or infinity."""
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )
    return text.encode("utf-8") + b"\n"


def packed_digest(blocks: Iterable[bytes]) -> str:
    """`chunks_digest` of ids that come as blocks of 16 bytes each, one after the other."""
    digest = hashlib.sha256()
    for block in blocks:
        if block:
            digest.update(hexlify(block, "\n", 16) + b"\n")
    return digest.hexdigest()


def chunks_digest(chunk_ids: Iterable[str]) -> str:
    """SHA-256, 64 hex digits, over the ids in row order, each followed by a line break."""
    digest = hashlib.sha256()
    for chunk_id in chunk_ids:
        digest.update(chunk_id.encode("ascii") + b"\n")
    return digest.hexdigest()


def version_id(chunks: str, **references: Any) -> str:
    """32 hex digits over the chunks' digest and every reference, as canonical JSON."""
    return hashlib.sha256(canonical({"chunks": chunks, **references})).hexdigest()[:32]


def parse(data: bytes, where: str) -> Manifest:
    """Reads a manifest; `where` names it in errors.

    Raises BundleMissing for a version that is not whole yet, BundleTooNew for a format this
    program does not know, and BundleCorrupt for anything that is not a manifest, or whose version
    id does not follow from its contents.
    """
    try:
        raw = json.loads(data)
    except ValueError as error:
        raise BundleCorrupt(f"{where} is not JSON ({error}); build the bundle again") from None
    if isinstance(raw, dict) and CLAIM in raw:
        raise BundleMissing(
            f"{where}: this version is still being published, or that was interrupted; publish it"
            " again"
        )
    if not isinstance(raw, dict) or not isinstance(raw.get("format"), int):
        raise BundleCorrupt(f"{where} has no format number; build the bundle again")
    if raw["format"] > FORMAT:
        raise BundleTooNew(
            f"{where} has format {raw['format']}, this program reads up to {FORMAT};"
            " upgrade the program or build the bundle with this one"
        )
    try:
        raw["files"] = {path: FileEntry(**entry) for path, entry in raw["files"].items()}
        manifest = Manifest(**raw)
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleCorrupt(f"{where} is incomplete ({error}); build the bundle again") from None
    if manifest.version != manifest.identity():
        raise BundleCorrupt(
            f"{where} says version {manifest.version}, its contents give {manifest.identity()};"
            " it was altered, build the bundle again"
        )
    return manifest

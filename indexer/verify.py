"""Proof that a bundle is whole: every byte, every row count, and the encoder's golden vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rag.errors import BundleMixed
from rag.index.bundle import open_bundle
from rag.models.encoder import EncoderConfig
from rag.models.golden import check_golden, required_cosine
from rag.models.load import load_embedder

PRECISIONS = ("float32", "int8")


def verify(uri: str, cache_dir: Path) -> dict[str, Any]:
    """Checks the bundle at `uri`; a remote one is copied below `cache_dir` first.

    Returns version, files, bytes, documents, chunks and, under `golden`, the worst cosine of each
    ONNX precision with its golden vectors. Raises BundleError naming the file and the reason.
    """
    bundle = open_bundle(uri, cache_dir=cache_dir, verify=True)
    manifest = bundle.manifest
    digest = EncoderConfig.read(bundle.encoder_folder).digest
    if digest != manifest.encoder["digest"]:
        raise BundleMixed(
            f"{bundle.encoder_folder} holds encoder {digest[:12]}, the manifest names"
            f" {manifest.encoder['digest'][:12]}; build the bundle again"
        )
    golden = {}
    for precision in PRECISIONS:
        embedder = load_embedder(bundle.encoder_folder, backend="onnx", precision=precision)
        least = required_cosine(precision, manifest.measured["encoder"])
        golden[precision] = check_golden(embedder, bundle.encoder_folder, min_cosine=least)
    return {
        "version": manifest.version,
        "files": len(manifest.files),
        "bytes": sum(entry.size for entry in manifest.files.values()),
        "documents": manifest.counts["documents"],
        "chunks": manifest.counts["chunks"],
        "skipped": manifest.counts["skipped"],
        "golden": golden,
    }

"""The rows that an external database should hold for a bundle, and how one may differ from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from indexer.audit.checks import all_ids
from indexer.external.table import Row
from rag.index.chunks import ChunkStore
from rag.index.dense import DenseLeg
from rag.index.manifest import Manifest
from rag.types import Int64

TOLERANCE = 1e-5
"""Of a vector's components: float32 survives its ways as text, half precision does not."""
_EXACT_INTEGERS = 2**53
_FIELDS = ("chunk_id", "doc_id", "title", "text", "uri", "page", "lang", "format")


class PassageRows:
    """Row i is the passage of row i with the dense leg's own vector of it."""

    def __init__(self, store: ChunkStore, leg: DenseLeg) -> None:
        self._store = store
        self._leg = leg

    @classmethod
    def open(cls, folder: Path, manifest: Manifest) -> PassageRows:
        """Those of the bundle in `folder`. Raises BundleError."""
        leg = DenseLeg.open(folder, manifest.dense, manifest.measured.get("dense"))
        return cls(ChunkStore.open(folder), leg)

    def __len__(self) -> int:
        return self._store.rows

    def ids(self) -> Iterator[str]:
        """Every row's chunk id, ascending."""
        return all_ids(self._store)

    def rows(self, rows: Int64) -> list[Row]:
        """The rows of these numbers (int64, (n,)), in that order."""
        chunks, vectors = self._store.chunks(rows), self._leg.vectors(rows)
        return [
            Row(
                c.chunk_id,
                c.doc_id,
                c.title,
                c.text,
                c.uri,
                c.page,
                c.lang,
                c.format,
                c.metadata,
                v,
            )
            for c, v in zip(chunks, vectors, strict=True)
        ]


def differences(wanted: Row, held: Row) -> list[str]:
    """What of `held` is not as in `wanted`: names of a row's fields.

    Numbers in metadata are compared by value, integers beyond 2**53 as the doubles that JSON makes
    of them in some databases; an empty list is as good as none there. Vectors may differ by
    TOLERANCE in each component.
    """
    found = [name for name in _FIELDS if getattr(wanted, name) != getattr(held, name)]
    if not _same_metadata(wanted.metadata, held.metadata):
        found.append("metadata")
    if wanted.vector.shape != held.vector.shape or not np.allclose(
        wanted.vector, held.vector, rtol=0, atol=TOLERANCE
    ):
        found.append("vector")
    return found


def _same_metadata(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    x, y = ({k: v for k, v in side.items() if _listed(v) != []} for side in (a, b))
    return x.keys() == y.keys() and all(_same(_listed(x[k]), _listed(y[k])) for k in x)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if _is_number(a) and _is_number(b):
        rounded = max(abs(a), abs(b)) > _EXACT_INTEGERS
        return math.isclose(a, b, rel_tol=2**-52, abs_tol=0) if rounded else bool(a == b)
    return type(a) is type(b) and bool(a == b)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

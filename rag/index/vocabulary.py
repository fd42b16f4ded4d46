"""Sorted terms on disk: a UTF-8 blob and its offsets, searched where they are mapped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.errors import BundleCorrupt, BundleMissing
from rag.index.kernels import find_terms
from rag.types import Int64

BLOB = "terms.npy"
OFFSETS = "term_offsets.npy"


class Vocabulary:
    """Terms to ids; the id of a term is its place in the order of code points."""

    def __init__(self, blob: NDArray[np.uint8], offsets: Int64) -> None:
        self._blob = blob
        self._offsets = offsets

    @staticmethod
    def write(folder: Path, terms: Sequence[str]) -> None:
        """Writes `terms`, which must ascend by code point, into `folder`."""
        encoded = [_encode(term) for term in terms]
        np.save(folder / BLOB, np.frombuffer(b"".join(encoded) or b"", dtype=np.uint8))
        np.save(folder / OFFSETS, _offsets(encoded))

    @classmethod
    def open(cls, folder: Path) -> Vocabulary:
        """Maps what `write` wrote; BundleMissing or BundleCorrupt names the file."""
        blob = open_array(folder / BLOB, np.uint8)
        offsets = open_array(folder / OFFSETS, np.int64)
        if not is_index_of(offsets, len(blob)):
            raise BundleCorrupt(f"{folder / OFFSETS} does not fit {BLOB}; build the bundle again")
        return cls(blob, offsets)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def ids(self, terms: Sequence[str]) -> Int64:
        """The id of each term, -1 for terms that are not there: int64 (len(terms),)."""
        encoded = [_encode(term) for term in terms]
        found = np.empty(len(encoded), dtype=np.int64)
        wanted = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        find_terms(self._blob, self._offsets, wanted, _offsets(encoded), found)
        return found


def open_array(path: Path, dtype: Any) -> NDArray[Any]:
    """A one-dimensional .npy file, memory-mapped, read-only.

    Raises BundleMissing or BundleCorrupt, naming the file.
    """
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise BundleMissing(f"{path} is not there; copy or build the bundle again") from None
    except (ValueError, OSError, EOFError) as error:
        raise BundleCorrupt(f"{path} cannot be read ({error}); build the bundle again") from None
    if mapped.ndim != 1 or mapped.dtype != np.dtype(dtype):
        raise BundleCorrupt(
            f"{path} holds {mapped.dtype} {mapped.shape}, not {np.dtype(dtype)} (n,); build again"
        )
    return np.asarray(mapped)


def is_index_of(offsets: Int64, size: int) -> bool:
    """Whether offsets[i]:offsets[i + 1] are slices that cut an array of `size` into pieces."""
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != size:
        return False
    return bool((offsets[1:] >= offsets[:-1]).all())


def _encode(term: str) -> bytes:
    return term.encode("utf-8", "surrogatepass")


def _offsets(encoded: Sequence[bytes]) -> Int64:
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(term) for term in encoded], out=offsets[1:])
    return offsets

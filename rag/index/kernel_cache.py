"""Compiled kernels in a folder that can only be read, such as an image's."""

from __future__ import annotations

import contextlib
from pathlib import Path

from numba.core.caching import UserProvidedCacheLocator


class ReadOnlyCacheLocator(UserProvidedCacheLocator):  # type: ignore[misc]
    """The folder NUMBA_CACHE_DIR, also where nothing can be written to it.

    Numba's own locators pass over such a folder and compile again in every process. This one is
    named by NUMBA_CACHE_LOCATOR_CLASSES=rag.index.kernel_cache.ReadOnlyCacheLocator, both when the
    cache is filled and when it is read.
    """

    def ensure_cache_path(self) -> None:
        """Makes the folder where that is possible; a write that fails later is the caller's."""
        with contextlib.suppress(OSError):
            Path(self.get_cache_path()).mkdir(parents=True, exist_ok=True)

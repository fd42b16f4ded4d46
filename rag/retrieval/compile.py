"""Compiles all loops ahead: `python -m rag.retrieval.compile` fills Numba's cache for the user who
will run them, `--library` makes what runs without Numba (see `rag.compiled`).
"""

from __future__ import annotations

import sys
from pathlib import Path

MODULES = ("rag.index.kernels", "rag.index.counting_kernels", "rag.retrieval.kernels")
"""All that declare kernels."""


def build_library(folder: Path) -> None:
    """The library of all kernels, for every target; raises BuildError."""
    from rag.compiled import ahead

    ahead.build(folder, MODULES)


def warm() -> None:
    """Runs every kernel of a search once, so that the first request finds them loaded."""
    from rag.index import kernels as index_kernels
    from rag.retrieval import kernels

    index_kernels.warm()
    kernels.warm()


if __name__ == "__main__":
    from rag.compiled.kernel import LIBRARY, compiler

    if sys.argv[1:] == ["--library"]:
        build_library(LIBRARY)
        print(f"compiled into {LIBRARY}")
    else:
        import rag.index.counting_kernels  # noqa: F401 - builds need them, and importing compiles

        warm()
        print(compiler())

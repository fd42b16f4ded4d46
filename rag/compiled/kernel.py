"""What a compiled loop is, and which compiler's code runs it.

Code that was compiled ahead (`ahead.py` makes it, images hold it) is used where it is there; else
Numba compiles when the module of the loop is first imported (`jit.py`). Neither is a slow path,
and there is no third.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rag.compiled.library import Library
from rag.errors import ConfigurationError

LIBRARY = Path(__file__).parent / "library"
"""Folder of the code that was compiled ahead, if it was."""


class Array(NamedTuple):
    """An argument: an array in C order, at any address, as those in mapped files are. `reads` and
    `writes` make it.
    """

    dtype: type[np.generic]
    ndim: int
    writable: bool


@dataclass(frozen=True)
class Kernel:
    """A function that returns nothing and uses nothing but its arguments: arrays, and scalars of
    NumPy's types. It may call other kernels and make arrays for itself.

    `reorder` lets float sums be taken in another order than written, which makes them vector code.
    """

    function: Callable[..., None]
    arguments: tuple[Array | type[np.generic], ...]
    reorder: bool

    @property
    def name(self) -> str:
        return f"{self.function.__module__}.{self.function.__name__}"


KERNELS: dict[str, Kernel] = {}
"""All that were declared so far, by name."""
_ahead = True


def reads(dtype: type[np.generic], ndim: int = 1) -> Array:
    """An array that is only read."""
    return Array(dtype, ndim, writable=False)


def writes(dtype: type[np.generic], ndim: int = 1) -> Array:
    """An array that is read and written."""
    return Array(dtype, ndim, writable=True)


def kernel(
    *arguments: Array | type[np.generic], reorder: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes machine code of a function for these types of arguments (see `Kernel`).

    The GIL is released while it runs. Arguments of other types are a TypeError. Raises
    ConfigurationError where the code that was compiled ahead is not of these sources, or where
    there is none and no Numba.
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        declared = Kernel(function, arguments, reorder)
        KERNELS[declared.name] = declared
        library = _library()
        return library.function(declared) if library is not None else _numba().compiled(declared)

    return declare


def compiler() -> str:
    """What made the code that runs in this process, in words."""
    library = _library()
    if library is not None:
        return f"compiled ahead by Numba {library.numba} for {library.target}"
    return f"compiled by Numba {_numba().VERSION} in this process, or by an earlier one and cached"


def use_numba() -> None:
    """From now on Numba compiles, whatever LIBRARY holds: for who compiles ahead."""
    global _ahead
    _ahead = False


def _library() -> Library | None:
    return _opened() if _ahead and Library.exists(LIBRARY) else None


@functools.cache
def _opened() -> Library:
    return Library.open(LIBRARY)


def _numba() -> Any:
    try:
        from rag.compiled import jit
    except ModuleNotFoundError as error:
        if error.name not in ("numba", "llvmlite"):
            raise
        raise ConfigurationError(
            f"{LIBRARY} holds no compiled loops and Numba is not installed: pip install numba"
        ) from None
    return jit

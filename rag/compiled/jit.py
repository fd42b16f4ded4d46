"""Kernels compiled by Numba in this process, for this processor, when they are declared.

That takes a second or two for all of them, and is cached: in the folder NUMBA_CACHE_DIR if it is
set, else beside the kernel's file, else in the user's cache folder. Later imports only load them.
Where none of these can be written they are compiled anew in every process, and work. The cache is
bound to the model of the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba import types

if TYPE_CHECKING:
    from rag.compiled.kernel import Array, Kernel

VERSION: str = numba.__version__


def compiled(kernel: Kernel) -> Callable[..., None]:
    """Numba's dispatcher with the code of the one signature."""
    options: dict[str, Any] = {"nogil": True}
    if kernel.reorder:
        options["fastmath"] = {"reassoc", "contract", "nsz"}
    signature = types.void(*map(numba_type, kernel.arguments))
    try:
        return numba.njit(signature, cache=True, **options)(kernel.function)  # type: ignore[no-any-return]
    except (RuntimeError, OSError) as error:
        if isinstance(error, RuntimeError) and "cannot cache" not in str(error):
            raise
        return numba.njit(signature, **options)(kernel.function)  # type: ignore[no-any-return]


def numba_type(argument: Array | type[np.generic]) -> Any:
    """Numba's type of an argument."""
    if isinstance(argument, type):
        return numba.from_dtype(np.dtype(argument))
    dtype = numba.from_dtype(np.dtype(argument.dtype))
    return types.Array(dtype, argument.ndim, "C", readonly=not argument.writable)

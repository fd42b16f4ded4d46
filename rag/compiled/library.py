"""Kernels compiled ahead of time: one shared library a kind of processor, called without Numba.

A folder holds `TARGET.so` for each target and `library.json`, written last. A library exports one
function a kernel, which takes the addresses of NumPy's array objects and scalars (`ahead.py`).
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.errors import ConfigurationError

if TYPE_CHECKING:
    from rag.compiled.kernel import Array, Kernel

INDEX = "library.json"
_V3 = frozenset({"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"})
TARGETS = {"x86_64": {"x86-64-v3": _V3, "x86-64": frozenset[str]()}}.get(
    platform.machine(), {"generic": frozenset[str]()}
)
"""LLVM's name of each kind of processor that is compiled for here, best first, and what Linux must
say of a processor beyond the baseline of its architecture.
"""
_SCALARS: dict[type[np.generic], Any] = {
    np.int64: ctypes.c_int64,
    np.float64: ctypes.c_double,
    np.float32: ctypes.c_float,
}
_C_ORDER, _WRITABLE = 0x1, 0x400  # NPY_ARRAY_*


class Library:
    """The code in one folder for one target."""

    def __init__(self, folder: Path, target: str, index: dict[str, Any]) -> None:
        self.target = target
        self.numba = str(index["numba"])
        self._folder = folder
        self._sources: dict[str, str] = index["sources"]
        try:
            self._code = ctypes.CDLL(str(folder / f"{target}.so"))
        except OSError as error:
            raise ConfigurationError(f"{folder} cannot be loaded: {error}") from None

    @classmethod
    def exists(cls, folder: Path) -> bool:
        return (folder / INDEX).is_file()

    @classmethod
    def open(cls, folder: Path, target: str | None = None) -> Library:
        """For `target`, or the best one that this processor is.

        Raises ConfigurationError where it was made for another Python, NumPy or architecture.
        """
        index = json.loads((folder / INDEX).read_bytes())
        if index["abi"] != abi():
            raise ConfigurationError(
                f"{folder} was compiled for {index['abi']}, and this is {abi()}: compile it again"
            )
        return cls(folder, target or best_target(), index)

    def function(self, kernel: Kernel) -> Callable[..., None]:
        """The compiled code of a kernel; ConfigurationError where its source was another."""
        module = kernel.function.__module__
        if self._sources.get(module) != source_digest(module):
            raise ConfigurationError(
                f"{self._folder} was compiled from another {module}: compile it again"
                " (python -m rag.retrieval.compile --library) or remove it"
            )
        return _bound(self._code[kernel.name], kernel)


def abi() -> str:
    """What the code depends on beside the processor's kind: interpreter, NumPy, architecture."""
    numpy = np.__version__.split(".")[0]
    return f"{sys.implementation.cache_tag} numpy-{numpy} {platform.machine()}"


def best_target(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The first of TARGETS that this processor is."""
    there: set[str] = set()
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                there = set(line.split())
                break
    return next(target for target, needed in TARGETS.items() if needed <= there)


def source_digest(module: str) -> str:
    """SHA-256 of a module's file."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ConfigurationError(f"{module} has no file; it cannot be compared with compiled code")
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()


def _bound(code: Any, kernel: Kernel) -> Callable[..., None]:
    """A Python function that checks arguments and calls the code."""
    name, count = kernel.name, len(kernel.arguments)
    checks = [_check(argument) for argument in kernel.arguments]
    code.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    code.argtypes += [
        _SCALARS[argument] if isinstance(argument, type) else ctypes.c_void_p
        for argument in kernel.arguments
    ]
    code.restype = ctypes.c_int32
    # Where Numba's code puts a result and an exception; a kernel has neither.
    nowhere = ctypes.create_string_buffer(16)
    result, raised = ctypes.addressof(nowhere), ctypes.addressof(nowhere) + 8

    def call(*arguments: Any) -> None:
        if len(arguments) != count:
            raise TypeError(f"{name} takes {count} arguments, not {len(arguments)}")
        values = []
        for argument, check in zip(arguments, checks, strict=True):
            values.append(check(argument))
        if code(result, raised, *values):
            raise ArithmeticError(f"{name} divided by zero or ran out of an array")

    # `values` are addresses: the arrays live as long as `arguments` and `nowhere` do.
    call.nowhere = nowhere  # type: ignore[attr-defined]
    call.__name__, call.__doc__ = kernel.function.__name__, kernel.function.__doc__
    return call


def _check(argument: Array | type[np.generic]) -> Callable[[Any], Any]:
    if isinstance(argument, type):
        return float if issubclass(argument, np.floating) else int
    dtype, ndim = np.dtype(argument.dtype), argument.ndim
    needed = _C_ORDER | (_WRITABLE if argument.writable else 0)

    def address(array: Any) -> int:
        if (
            not isinstance(array, np.ndarray)
            or array.dtype != dtype
            or array.ndim != ndim
            or array.flags.num & needed != needed
        ):
            kind = "writable " if argument.writable else ""
            raise TypeError(f"not a {kind}{dtype} array of {ndim} dimensions in C order")
        return id(array)

    return address

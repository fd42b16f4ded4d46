"""What runs where: 'auto', 'cpu', 'cuda' or 'cuda:N', and whether it is there.

Asks the driver itself (libcuda), so that a process on a CPU need not import PyTorch to learn that
there is no GPU.
"""

from __future__ import annotations

import ctypes
import re
from typing import NamedTuple

from rag.errors import ConfigurationError

AUTO, CPU, CUDA = "auto", "cpu", "cuda"
LIBRARY = "libcuda.so.1"


class Driver(NamedTuple):
    """The CUDA driver: the CUDA version that it supports, as (13, 0), how many devices this
    process may use, and the compute capability of each, as (9, 0), where it says them; (0, 0), 0
    and none where there is no driver.
    """

    cuda: tuple[int, int]
    devices: int
    capabilities: tuple[tuple[int, int], ...] = ()


NO_DRIVER = Driver((0, 0), 0)


def read_driver(library: str = LIBRARY) -> Driver:
    """The driver of this machine, as CUDA_VISIBLE_DEVICES leaves it."""
    try:
        cuda = ctypes.CDLL(library)
        version, count = ctypes.c_int(), ctypes.c_int()
        if cuda.cuInit(0) or cuda.cuDriverGetVersion(ctypes.byref(version)):
            return NO_DRIVER
        if cuda.cuDeviceGetCount(ctypes.byref(count)):
            return NO_DRIVER
        capabilities = tuple(_capability(cuda, number) for number in range(count.value))
    except (OSError, AttributeError):
        return NO_DRIVER
    return Driver((version.value // 1000, version.value % 1000 // 10), count.value, capabilities)


def _capability(cuda: ctypes.CDLL, number: int) -> tuple[int, int]:
    """Of device `number`, as the driver's attributes 75 and 76 say it."""
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    failed = cuda.cuDeviceGet(ctypes.byref(device), number)
    for attribute, value in ((75, major), (76, minor)):
        failed = failed or cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    if failed:
        raise ConfigurationError(
            f"the driver does not say what device {number} can do (error {failed}); check that"
            " nvidia-smi lists it, or leave it out of CUDA_VISIBLE_DEVICES"
        )
    return major.value, minor.value


def split_devices(device: str) -> list[str]:
    """'cuda:0,1' as ['cuda:0', 'cuda:1']; another name as itself alone."""
    first, *others = device.split(",")
    if others and not first.startswith("cuda:"):
        raise ConfigurationError(f"the devices {device!r} are not written as 'cuda:0,1'")
    return [first, *(f"cuda:{other.strip()}" for other in others)]


def check_name(device: str) -> None:
    """Raises ConfigurationError for what is no device's name."""
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", device) is None:
        raise ConfigurationError(f"the device {device!r} is not 'auto', 'cpu', 'cuda' or 'cuda:N'")


def number_of(device: str) -> int | None:
    """N of 'cuda:N', 0 of 'cuda', None of 'cpu'."""
    if device == CPU:
        return None
    return int(device.partition(":")[2] or 0)


def choose_device(wanted: str, driver: Driver, *, lacking: str | None, what: str) -> str:
    """'cpu', 'cuda' or 'cuda:N' for what was `wanted`.

    `lacking` says what `what` (such as 'the encoder') lacks to run on a GPU, or is None. 'auto'
    takes the first GPU where there is one and nothing is lacking, else the CPU. A GPU that was
    asked for and cannot be had is a ConfigurationError, never the CPU.
    """
    check_name(wanted)
    if wanted == CPU:
        return CPU
    if wanted == AUTO:
        return CUDA if driver.devices and lacking is None else CPU
    number = number_of(wanted) or 0
    if number >= driver.devices:
        raise ConfigurationError(
            f"{what} is to run on {wanted}, and this process sees {driver.devices} CUDA devices;"
            " check the driver and CUDA_VISIBLE_DEVICES, or set the device to cpu"
        )
    if lacking is not None:
        raise ConfigurationError(f"{what} is to run on {wanted}, and {lacking}")
    return wanted

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rag.devices import (
    NO_DRIVER,
    Driver,
    check_name,
    choose_device,
    number_of,
    read_driver,
    split_devices,
)
from rag.errors import ConfigurationError

TWO = Driver((13, 0), 2)


def choose(wanted: str, driver: Driver, lacking: str | None = None) -> str:
    return choose_device(wanted, driver, lacking=lacking, what="the encoder")


def test_auto_takes_a_gpu_that_can_be_used_and_else_the_cpu() -> None:
    assert choose("auto", TWO) == "cuda"
    assert choose("auto", TWO, "its package has no CUDA") == "cpu"
    assert choose("auto", NO_DRIVER) == "cpu"


def test_what_is_named_is_taken() -> None:
    assert choose("cpu", TWO) == "cpu"
    assert choose("cuda", TWO) == "cuda"
    assert choose("cuda:1", TWO) == "cuda:1"


def test_a_gpu_that_is_missing_is_refused_never_replaced() -> None:
    with pytest.raises(ConfigurationError, match=r"run on cuda, and this process sees 0 CUDA"):
        choose("cuda", NO_DRIVER)
    with pytest.raises(ConfigurationError, match=r"run on cuda:2, and this process sees 2"):
        choose("cuda:2", TWO)
    with pytest.raises(ConfigurationError, match=r"run on cuda, and its package has no CUDA"):
        choose("cuda", TWO, "its package has no CUDA")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", "mps"])
def test_names_of_no_device(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is not 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        check_name(name)


def test_numbers_and_lists() -> None:
    assert [number_of(name) for name in ("cpu", "cuda", "cuda:3")] == [None, 0, 3]
    assert split_devices("cuda:0,1, 2") == ["cuda:0", "cuda:1", "cuda:2"]
    assert split_devices("auto") == ["auto"]
    with pytest.raises(ConfigurationError, match="not written as 'cuda:0,1'"):
        split_devices("cpu,1")


def test_no_driver_and_what_is_no_driver() -> None:
    assert read_driver("libnowhere.so.1") == NO_DRIVER
    assert read_driver("libc.so.6") == NO_DRIVER


DRIVER = """
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int number) { *device = 40 + number; return number > 1; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (device < 40 || device > 41) return 101;
    if (attribute == 75) *value = device == 40 ? 8 : 9;
    else if (attribute == 76) *value = device == 40 ? 6 : 0;
    else return 1;
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="a driver's stand-in needs a C compiler")
def test_a_driver_is_asked_in_its_own_interface(tmp_path: Path) -> None:
    (tmp_path / "driver.c").write_text(DRIVER)
    library = tmp_path / "libcuda.so.1"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "driver.c")], check=True
    )
    assert read_driver(str(library)) == Driver((13, 1), 2, ((8, 6), (9, 0)))

from __future__ import annotations

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

from __future__ import annotations

from pathlib import Path

import pytest

from rag.accelerator import (
    TABLE,
    Installed,
    check_versions,
    lacks_code,
    read_installed,
    table,
    wheel_of,
)
from rag.devices import Driver
from rag.errors import ConfigurationError

CUVS = ("faiss-gpu-cuvs", "1.15.1")
CU12 = ("faiss-gpu-cu12", "1.14.1.post1")


def test_one_line_says_what_goes_together() -> None:
    line = check_versions(Driver((13, 1), 4), Installed(CUVS, "2.13.0", "13.0"))
    assert line == (
        "driver for CUDA 13.1, 4 devices; torch 2.13.0 for CUDA 13.0; faiss-gpu-cuvs 1.15.1 for"
        " CUDA 13"
    )
    assert "faiss-cpu 1.15.1" in check_versions(
        Driver((12, 4), 1), Installed(("faiss-cpu", "1.15.1"), "2.9.0", "12.6")
    )


def test_what_does_not_go_together_is_named() -> None:
    with pytest.raises(ConfigurationError, match="torch is built for CUDA 13, newer than the driv"):
        check_versions(Driver((12, 4), 1), Installed(CU12, "2.13.0", "13.0"))
    with pytest.raises(ConfigurationError, match="FAISS is built for CUDA 13, newer than the driv"):
        check_versions(Driver((12, 8), 1), Installed(CUVS, "2.9.0", "12.8"))
    with pytest.raises(ConfigurationError, match="torch and FAISS are built for different CUDA"):
        check_versions(Driver((13, 0), 1), Installed(CU12, "2.13.0", "13.0"))


def test_a_wheel_without_code_for_the_device_is_refused() -> None:
    hopper = Driver((13, 0), 2, ((8, 0), (9, 0)))
    old = Installed(CU12, "2.9.0", "12.8")
    with pytest.raises(ConfigurationError, match=r"capability 7\.0 to 8\.9, and device 1 has 9\.0"):
        check_versions(hopper, old)
    with pytest.raises(ConfigurationError, match="device 1 has 9"):
        check_versions(hopper, old, [1])
    assert "compute capability 8.0, 9.0" in check_versions(hopper, old, [0])
    newest = Driver((13, 0), 2, ((9, 0), (12, 0)))
    assert check_versions(newest, Installed(CUVS, "2.13.0", "13.0"))
    with pytest.raises(ConfigurationError, match=r"7\.5 and newer, and device 0 has 7\.0"):
        check_versions(Driver((13, 0), 1, ((7, 0),)), Installed(CUVS, "2.13.0", "13.0"))
    assert lacks_code(hopper, Installed(("faiss-cpu", "1.15.1"), None, None)) is None


def test_a_wheel_that_was_never_tried_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"faiss-gpu-cuvs 2\.0\.1 is not in the table"):
        wheel_of(("faiss-gpu-cuvs", "2.0.1"))
    assert wheel_of(("faiss-cpu", "9.9")) is None
    assert wheel_of(None) is None


def test_every_wheel_of_the_table_is_found_by_its_versions() -> None:
    for wheel in TABLE:
        assert wheel_of((wheel.package, f"{wheel.first[0]}.{wheel.first[1]}.0")) == wheel
        after = (wheel.package, f"{wheel.end[0]}.{wheel.end[1]}.0")
        others = [w for w in TABLE if w.package == wheel.package and w.first == wheel.end]
        if others:
            assert wheel_of(after) == others[0]
        else:
            with pytest.raises(ConfigurationError):
                wheel_of(after)


def test_the_readme_has_the_table() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert table() in readme


def test_this_environment_is_read_without_importing_torch() -> None:
    import importlib.metadata

    installed = read_installed()
    assert installed.torch == importlib.metadata.version("torch")
    assert installed.faiss is not None

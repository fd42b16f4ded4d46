"""Where the dense leg goes on a machine whose FAISS cannot use a GPU, whatever the driver says."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from rag.accelerator import Installed
from rag.devices import NO_DRIVER, Driver
from rag.errors import ConfigurationError
from rag.index.bundle import Bundle
from rag.index.dense.gpu import faiss_lacks
from rag.retrieval import opening
from rag.retrieval.opening import place_dense

pytestmark = pytest.mark.skipif(faiss_lacks() is None, reason="this FAISS can use a GPU")


@pytest.fixture
def bundle(sample_bundle: Path) -> Bundle:
    return Bundle.open(sample_bundle, verify=False)


def has(monkeypatch: pytest.MonkeyPatch, driver: Driver, torch_cuda: str = "13.0") -> None:
    """Another machine's driver and packages."""
    installed = Installed(("faiss-cpu", "1.15.1"), "2.13.0", torch_cuda)
    monkeypatch.setattr(opening, "read_driver", lambda: driver)
    monkeypatch.setattr(opening, "read_installed", lambda: installed)


def test_auto_stays_on_the_cpu_and_says_why(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    leg = bundle.dense
    with caplog.at_level(logging.INFO):
        has(monkeypatch, NO_DRIVER)
        place_dense(bundle, "auto")
        assert caplog.text == ""
        has(monkeypatch, Driver((13, 0), 1))
        place_dense(bundle, "auto")
    assert "driver for CUDA 13.0, 1 devices; torch 2.13.0 for CUDA 13.0" in caplog.text
    assert "the dense leg runs on the CPU: this FAISS" in caplog.text
    has(monkeypatch, Driver((12, 2), 1))
    place_dense(bundle, "auto")
    assert "newer than the driver" in caplog.text
    assert bundle.dense is leg


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:0,1"])
def test_a_gpu_that_was_asked_for_is_insisted_on(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    has(monkeypatch, Driver((13, 0), 2))
    with pytest.raises(ConfigurationError, match="built without GPU support"):
        place_dense(bundle, device)
    has(monkeypatch, NO_DRIVER)
    with pytest.raises(ConfigurationError, match="sees 0 CUDA devices"):
        place_dense(bundle, device)

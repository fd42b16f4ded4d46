"""A dense leg's way onto GPUs: as a scan of all vectors, or as FAISS's own copies and shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rag.accelerator import lacks_code, read_installed
from rag.devices import AUTO, CPU, Driver, choose_device, number_of, read_driver, split_devices
from rag.errors import ConfigurationError
from rag.index.dense.factory import METRIC, faiss
from rag.index.dense.gpu_plan import TEMPORARY_BYTES, Plan, Search, plan_gpu
from rag.index.dense.gpu_scan import GpuScan, Part
from rag.index.dense.gpu_search import GpuIndex, cagra_parameters, ivf_parameters
from rag.index.dense.leg import DenseLeg

ROWS_AT_ONCE = 262_144


def faiss_lacks() -> str | None:
    """Why this FAISS cannot use a GPU, or None."""
    if not hasattr(faiss, "StandardGpuResources"):
        return (
            f"this FAISS ({faiss.__version__}) is built without GPU support; install faiss-gpu-cu12"
            " or faiss-gpu-cuvs in place of faiss-cpu, or set RAG_DENSE_DEVICE=cpu"
        )
    if faiss.get_num_gpus() == 0:
        return "FAISS finds no GPU that it can use; check that the driver supports its CUDA"
    return None


def dense_device(wanted: str, driver: Driver) -> str:
    """'cpu', 'cuda' or 'cuda:N' for the dense leg; see `rag.devices.choose_device`."""
    lacking = faiss_lacks() if driver.devices else None
    return choose_device(wanted, driver, lacking=lacking, what="the dense leg")


def build_gpus(device: str, note: Callable[..., None]) -> list[int]:
    """The GPUs that an index is trained on, where `device` (of the encoder) has some.

    None where FAISS cannot use one; `note` then hears why: the index is the same, made slower.
    """
    names = split_devices(device)
    if names == [CPU]:
        return []
    driver = read_driver()
    if names == [AUTO] and not driver.devices:
        return []
    numbers = [number_of(name) or 0 for name in names]
    if lacking := faiss_lacks() or lacks_code(driver, read_installed(), numbers):
        note("the dense index is built on the CPU", why=lacking)
        return []
    return numbers


def on_gpu(
    leg: DenseLeg, devices: Sequence[str], free_bytes: Sequence[int], *, search: Search = "auto"
) -> tuple[DenseLeg, Plan]:
    """`leg`, searched on `devices` ('cuda:0', …) that have so many free bytes, and how.

    The vectors that hits are scored by stay on this machine's disk. Raises ConfigurationError for
    what does not fit or cannot run there.
    """
    spec = leg.spec
    cagra = isinstance(leg.index, faiss.IndexHNSWCagra) and hasattr(faiss, "GpuIndexCagra")
    plan = plan_gpu(spec, leg.rows, free_bytes, search=search, cagra=cagra)
    if plan.search == "flat":
        return leg.with_nominator(scan_of(leg, devices, sharded=plan.sharded)), plan
    numbers = [number_of(device) or 0 for device in devices]
    resources = Resources(numbers)
    if spec.kind == "hnsw":
        index = resources.cagra(leg.index, numbers[0])
        parameters = cagra_parameters(spec.numbers["ef_search"])
        nominator = GpuIndex(index, parameters, 0, keep=resources)
    else:
        index = resources.copies(leg.index, numbers, sharded=plan.sharded)
        parameters = ivf_parameters(spec.numbers["nprobe"])
        candidates = spec.numbers["candidates"]
        nominator = GpuIndex(index, parameters, candidates, keep=resources)
    return leg.with_nominator(nominator), plan


def scan_of(leg: DenseLeg, devices: Sequence[str], *, sharded: bool) -> GpuScan:
    """A scan of all of a leg's vectors: each device holds all of them, or its part."""
    if not sharded:
        return GpuScan([[_part(leg, device, 0, leg.rows)] for device in devices])
    bounds = np.linspace(0, leg.rows, len(devices) + 1).astype(int).tolist()
    spans = zip(devices, bounds[:-1], bounds[1:], strict=True)
    return GpuScan([[_part(leg, device, start, end) for device, start, end in spans]])


def _part(leg: DenseLeg, device: str, start: int, end: int) -> Part:
    firsts = range(start, end, ROWS_AT_ONCE)
    blocks = (leg.vectors(np.arange(first, min(first + ROWS_AT_ONCE, end))) for first in firsts)
    return Part(device, start, end - start, leg.dimension, blocks)


class Resources:
    """FAISS's scratch memory and streams, one set for each device; lives as long as its indexes."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._of = {}
        for number in numbers:
            resources = faiss.StandardGpuResources()
            resources.setTempMemory(TEMPORARY_BYTES // 2)
            self._of[number] = resources

    def copies(self, index: Any, numbers: Sequence[int], *, sharded: bool) -> Any:
        """An IVF index on every device."""
        options = faiss.GpuMultipleClonerOptions()
        options.shard = sharded
        options.useFloat16 = True
        options.indicesOptions = faiss.INDICES_64_BIT
        resources = [self._of[number] for number in numbers]
        return faiss.index_cpu_to_gpu_multiple_py(resources, index, options, list(numbers))

    def cagra(self, index: Any, number: int) -> Any:
        """A graph on one device; CAGRA's own search."""
        config = faiss.GpuIndexCagraConfig()
        config.device = number
        copied = faiss.GpuIndexCagra(self._of[number], index.d, METRIC, config)
        copied.copyFrom(index)
        return copied


def free_memory(numbers: Sequence[int]) -> list[int]:
    """Bytes that each device has free, as the driver says through PyTorch.

    Raises ConfigurationError where PyTorch is missing.
    """
    try:
        import torch
    except ImportError:
        raise ConfigurationError(
            "planning GPU memory needs torch; pip install 'rag-containers[gpu]'"
        ) from None
    return [int(torch.cuda.mem_get_info(number)[0]) for number in numbers]

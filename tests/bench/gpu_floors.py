"""What a device can do at best, measured: matrix products and memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

Line = dict[str, Any]
"""One figure: `what`, `value`, `unit`, what it is compared with (`of`) and that value (`floor`)."""
ROUNDS = 10


class Floors(NamedTuple):
    """`flops`: of a large bfloat16 matrix product, a second. `bandwidth`: bytes read and written
    by a large copy, a second.
    """

    flops: float
    bandwidth: float


def synchronise(device: str) -> None:
    """Waits until the device has done everything."""
    import torch

    if device != "cpu":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], Any], device: str, rounds: int = ROUNDS) -> float:
    """The mean time of a call, after two that warm."""
    for _ in range(2):
        run()
    synchronise(device)
    began = time.perf_counter()
    for _ in range(rounds):
        run()
    synchronise(device)
    return (time.perf_counter() - began) / rounds


def measure_floors(device: str, *, small: bool) -> Floors:
    import torch

    side, items = (64, 1 << 16) if small else (8192, 1 << 30)
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    source = torch.zeros(items, device=device, dtype=torch.int8)
    target = torch.empty_like(source)
    product = seconds(lambda: a @ a, device)
    copy = seconds(lambda: target.copy_(source), device)
    return Floors(2 * side**3 / product, 2 * items / copy)

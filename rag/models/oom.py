"""Out of memory in a batch: it is halved, and everything is computed all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def run_halving(
    run: Callable[[Sequence[int]], T],
    rows: Sequence[int],
    is_out_of_memory: Callable[[BaseException], bool],
    halved: Callable[[int], None],
) -> list[tuple[Sequence[int], T]]:
    """`run(rows)`; where it runs out of memory, the same of each half, and so on.

    Returns what was computed with the rows it is of, in order. `halved` hears the size of each
    batch that was too large. Raises what `run` raises for one row alone, and anything else.
    """
    try:
        return [(rows, run(rows))]
    except Exception as error:
        if not is_out_of_memory(error) or len(rows) == 1:
            raise
    # Outside the handler: the failed batch's tensors hang on the exception until it is gone.
    halved(len(rows))
    middle = len(rows) // 2
    first = run_halving(run, rows[:middle], is_out_of_memory, halved)
    return first + run_halving(run, rows[middle:], is_out_of_memory, halved)


def torch_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch could not allocate on a device."""
    import torch

    return isinstance(error, torch.OutOfMemoryError)


def onnx_out_of_memory(error: BaseException) -> bool:
    """Whether ONNX Runtime could not; it has no class for it, only its allocator's words."""
    text = str(error)
    return "Failed to allocate memory" in text or "CUDA out of memory" in text

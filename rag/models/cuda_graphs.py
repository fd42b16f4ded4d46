"""CUDA graphs for the small batches of queries, whose time is spent on launching kernels.

A graph replays one shape from and to fixed memory. Batches are padded to the nearest captured
shape; larger ones run as they are. Padding is masked, so vectors stay the same to within rounding.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np

from rag.errors import ConfigurationError
from rag.models.tokenizer import Tokens
from rag.types import Int64

SIZES = (1, 2, 4, 8, 16, 32)
LENGTHS = (16, 32, 64, 128)
WARM_RUNS = 3
"""Before a capture, so that libraries have chosen their kernels and made their workspaces."""


def captured_shape(size: int, length: int) -> tuple[int, int] | None:
    """The smallest captured (texts, tokens) that holds a batch; None for one that is larger."""
    sizes = [s for s in SIZES if s >= size]
    lengths = [n for n in LENGTHS if n >= length]
    return (sizes[0], lengths[0]) if sizes and lengths else None


def pad_tokens(tokens: Tokens, size: int, length: int) -> Tokens:
    """`tokens` with masked columns up to `length`, and copies of its first row up to `size`."""

    def padded(array: Int64) -> Int64:
        wide = np.zeros((size, length), dtype=np.int64)
        wide[: len(array), : array.shape[1]] = array
        wide[len(array) :] = wide[0]
        return wide

    return Tokens(*(padded(array) for array in tokens))


class _Graph(NamedTuple):
    graph: Any
    inputs: dict[str, Any]
    output: Any


class GraphedForward:
    """A `Forward` that replays small shapes; each is captured the first time it comes."""

    def __init__(self, eager: Any) -> None:
        if eager.device.type != "cuda":
            raise ConfigurationError(
                f"CUDA graphs need a CUDA device, the encoder is on {eager.device}; choose the"
                " speed-up none or compile"
            )
        self._eager = eager
        self._graphs: dict[tuple[int, int, int], _Graph] = {}
        self._lock = threading.Lock()

    def __call__(self, tokens: Tokens, prompt_tokens: int) -> Any:
        size, length = tokens.ids.shape
        shape = captured_shape(size, length)
        if shape is None:
            return self._eager(tokens, prompt_tokens)
        features = self._eager.to_device(pad_tokens(tokens, *shape))
        with self._lock:  # the graph's memory serves one batch at a time
            found = self._captured((*shape, prompt_tokens), features)
            for name, tensor in features.items():
                found.inputs[name].copy_(tensor, non_blocking=True)
            found.graph.replay()
            return found.output[:size].clone()

    def warm(self) -> None:
        """Captures every shape, for queries without a prompt."""
        import torch

        ones = np.ones((1, 1), dtype=np.int64)
        with torch.inference_mode():
            for size in SIZES:
                for length in LENGTHS:
                    self(pad_tokens(Tokens(ones, ones, 0 * ones), size, length), 0)

    def release(self) -> None:
        self._eager.release()

    def _captured(self, key: tuple[int, int, int], features: dict[str, Any]) -> _Graph:
        if key not in self._graphs:
            self._graphs[key] = self._capture(features, key[2])
        return self._graphs[key]

    def _capture(self, features: dict[str, Any], prompt_tokens: int) -> _Graph:
        import torch

        inputs = {name: tensor.clone() for name, tensor in features.items()}
        side = torch.cuda.Stream(self._eager.device)
        side.wait_stream(torch.cuda.current_stream(self._eager.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_RUNS):
                self._eager.compute(inputs, prompt_tokens)
        torch.cuda.current_stream(self._eager.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self._eager.compute(inputs, prompt_tokens)
        return _Graph(graph, inputs, output)

"""Out of memory: faults injected into a real model's forward pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import ConfigurationError, ModelFailure
from rag.models.batch_fit import fit_batch_tokens
from rag.models.cuda_graphs import GraphedForward, captured_shape, pad_tokens
from rag.models.oom import onnx_out_of_memory, run_halving
from rag.models.parallel_embedder import ParallelEmbedder
from rag.models.tokenizer import Tokens
from rag.models.torch_embedder import TorchEmbedder
from rag.models.torch_forward import make_forward
from rag.service.encoding import EncoderStage
from rag.service.metrics import Metrics
from rag.service.vector_cache import VectorCache

TEXTS = [f"passage {i} " + "about memory " * (i % 7) for i in range(60)] + ["기억 장치"]


@pytest.fixture(scope="module")
def folder(exported_encoder: Path) -> Path:
    return exported_encoder


def limit(embedder: TorchEmbedder, tokens: int) -> list[int]:
    """From now on the model cannot allocate for more tokens than this; says what was tried."""
    import torch

    tried: list[int] = []

    def hook(_: Any, arguments: tuple[dict[str, Any]]) -> None:
        size = arguments[0]["input_ids"].numel()
        tried.append(size)
        if size > tokens:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate for {size} tokens")

    embedder.model.register_forward_pre_hook(hook)
    return tried


def test_a_batch_that_is_too_large_is_halved_and_nothing_is_lost(folder: Path) -> None:
    truth = TorchEmbedder(folder).embed_passages(TEXTS)
    heard: list[None] = []
    embedder = TorchEmbedder(folder, on_halved=lambda: heard.append(None))
    tried = limit(embedder, 200)
    vectors = embedder.embed_passages(TEXTS)
    assert np.abs(vectors - truth).max() < 1e-5
    assert embedder.halvings == len(heard) > 0
    assert embedder.halvings == sum(size > 200 for size in tried)


def test_later_batches_are_no_larger_than_what_went_well(folder: Path) -> None:
    embedder = TorchEmbedder(folder)
    tried = limit(embedder, 200)
    embedder.embed_passages(TEXTS)
    learned = embedder.halvings
    assert embedder.max_batch_tokens <= 200
    tried.clear()
    embedder.embed_passages(TEXTS)
    assert embedder.halvings == learned
    assert max(tried) <= 200


def test_a_text_that_does_not_fit_alone_fails_and_says_so(folder: Path) -> None:
    embedder = TorchEmbedder(folder)
    limit(embedder, 3)
    with pytest.raises(ModelFailure, match="out of memory"):
        embedder.embed_queries(["a text of more than three tokens"])


def test_halves_keep_their_order_and_other_errors_pass() -> None:
    def run(rows: Sequence[int]) -> list[int]:
        if len(rows) > 3:
            raise MemoryError
        return [10 * row for row in rows]

    sizes: list[int] = []
    done = run_halving(run, range(11), lambda e: isinstance(e, MemoryError), sizes.append)
    assert [row for rows, _ in done for row in rows] == list(range(11))
    assert [value for _, values in done for value in values] == [10 * row for row in range(11)]
    assert sizes[0] == 11

    def broken(_: Sequence[int]) -> None:
        raise ValueError("no matter of memory")

    with pytest.raises(ValueError, match="no matter"):
        run_halving(broken, [1, 2], lambda e: isinstance(e, MemoryError), sizes.append)


def test_onnxruntime_is_known_by_its_words() -> None:
    assert onnx_out_of_memory(RuntimeError("BFCArena: Failed to allocate memory for requested"))
    assert not onnx_out_of_memory(RuntimeError("invalid input"))


def test_the_largest_batch_that_fits_beside_the_index() -> None:
    def peak(tokens: int) -> int | None:
        return 1000 * tokens if tokens <= 16_384 else None

    assert fit_batch_tokens(peak, 10**9) == 16_384
    assert fit_batch_tokens(peak, 10_000_000) == 8_192
    assert fit_batch_tokens(peak, 10_000_000, at_once=2) == 4_096
    assert fit_batch_tokens(lambda tokens: tokens, 10**9) == 262_144
    with pytest.raises(ConfigurationError, match="1 batches of 512 tokens do not fit into 100"):
        fit_batch_tokens(peak, 100)


def test_copies_share_the_work_and_give_the_same_vectors(folder: Path) -> None:
    one = TorchEmbedder(folder)
    both = ParallelEmbedder([one, TorchEmbedder(folder)], slice_size=7)
    for embed in ("embed_passages", "embed_queries"):
        assert np.abs(getattr(both, embed)(TEXTS) - getattr(one, embed)(TEXTS)).max() < 1e-5
    assert both.max_batch_tokens == one.max_batch_tokens
    assert both.device == "cpu"
    assert both.embed_passages([]).shape == (0, one.config.dimension)
    assert np.array_equal(both.readable(TEXTS), one.readable(TEXTS))
    limit(one, 3)
    with pytest.raises(ModelFailure):
        both.embed_passages(TEXTS)
    with pytest.raises(ConfigurationError, match="no encoder to run in parallel"):
        ParallelEmbedder([])


def test_no_request_is_lost_when_the_encoder_runs_out_of_memory(folder: Path) -> None:
    """Through the service's batcher: everyone gets the vector of their text, and it is counted."""
    metrics = Metrics()
    embedder = TorchEmbedder(folder, on_halved=metrics.halved)
    limit(embedder, 60)
    truth = TorchEmbedder(folder).embed_queries(TEXTS)

    async def ask() -> list[Any]:
        stage = EncoderStage(
            embedder, cache=VectorCache(0), batch_max_tokens=100_000, max_waiting=100
        )
        deadline = time.monotonic() + 300
        try:
            return await asyncio.gather(*(stage.encode(t, deadline=deadline) for t in TEXTS))
        finally:
            await stage.close()

    found = np.stack([encoding.query.vector for encoding in asyncio.run(ask())])
    assert np.abs(found - truth).max() < 1e-5
    assert embedder.halvings > 0
    assert f"rag_batches_halved_total {float(embedder.halvings)}" in metrics.render().decode()


def test_graphs_need_a_gpu_and_small_shapes(folder: Path) -> None:
    embedder = TorchEmbedder(folder)
    with pytest.raises(ConfigurationError, match="CUDA graphs need a CUDA device"):
        GraphedForward(make_forward(embedder.model, 384, "none"))
    with pytest.raises(ConfigurationError, match="CUDA graphs need a CUDA device"):
        TorchEmbedder(folder, speedup="graphs")
    assert captured_shape(1, 1) == (1, 16)
    assert captured_shape(3, 33) == (4, 64)
    assert captured_shape(33, 16) is None
    assert captured_shape(1, 129) is None


def test_padding_to_a_captured_shape_changes_no_vector(folder: Path) -> None:
    import torch

    embedder = TorchEmbedder(folder)
    forward = make_forward(embedder.model, 384, "none")
    ids = np.array([[101, 3638, 102]], dtype=np.int64)
    tokens = Tokens(ids, np.ones_like(ids), np.zeros_like(ids))
    wide = pad_tokens(tokens, 4, 16)
    assert wide.ids.shape == (4, 16)
    assert wide.mask.sum(axis=1).tolist() == [3, 3, 3, 3]
    with torch.inference_mode():
        alone, padded = forward(tokens, 0), forward(wide, 0)[:1]
    assert np.abs(alone.numpy() - padded.numpy()).max() < 1e-5

"""How much memory batches of an encoder take on its GPU, and the largest that fits."""

from __future__ import annotations

from typing import Any

from rag.models.batch_fit import fit_batch_tokens
from rag.models.torch_embedder import TorchEmbedder


def fit_to_device(embedder: TorchEmbedder, *, at_once: int) -> None:
    """Sets the embedder's budget to the largest batch of which `at_once` fit into what its GPU has
    free: what shares the GPU is to be there before.
    """
    import torch

    device = embedder.model.device
    free, _ = torch.cuda.mem_get_info(device)
    embedder.max_batch_tokens = fit_batch_tokens(
        lambda tokens: _peak(embedder, tokens, device), free, at_once=at_once
    )
    torch.cuda.empty_cache()


def _peak(embedder: TorchEmbedder, tokens: int, device: Any) -> int | None:
    """Bytes that a batch of full texts took at its peak; None where memory ran out."""
    import torch

    length = embedder.config.max_tokens
    texts = ["a " * length] * max(1, tokens // length)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    halvings = embedder.halvings
    embedder.max_batch_tokens = max(tokens, length)
    embedder.embed_passages(texts)
    if embedder.halvings > halvings:
        return None
    return int(torch.cuda.max_memory_allocated(device) - before)

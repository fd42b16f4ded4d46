"""Padded tokens to unit vectors on one device."""

from __future__ import annotations

from typing import Any, Literal, Protocol, get_args

from rag.errors import ConfigurationError
from rag.models.tokenizer import Tokens
from rag.models.torch_loading import input_names
from rag.types import Int64

Speedup = Literal["none", "compile", "graphs"]


class Forward(Protocol):
    """`tokens` to a tensor (n, d) on the device, L2 norm 1; may return before it is computed."""

    def __call__(self, tokens: Tokens, prompt_tokens: int) -> Any: ...

    def warm(self) -> None:
        """Prepares what can be before the first batch."""
        ...

    def release(self) -> None:
        """Gives memory that is only cached back to the device."""
        ...


def make_forward(model: Any, dimension: int, speedup: Speedup) -> Forward:
    """The forward pass of a SentenceTransformer, on whatever device it lies.

    Raises ConfigurationError for graphs without CUDA.
    """
    if speedup not in get_args(Speedup):
        raise ConfigurationError(f"the speed-up {speedup!r} is not one of {get_args(Speedup)}")
    eager = Eager(model, dimension)
    if speedup == "compile":
        import torch

        # Shapes change from batch to batch: one compilation serves them all.
        model[0].auto_model = torch.compile(model[0].auto_model, dynamic=True)
    if speedup == "graphs":
        from rag.models.cuda_graphs import GraphedForward

        return GraphedForward(eager)
    return eager


class Eager:
    """The pass as PyTorch runs it."""

    def __init__(self, model: Any, dimension: int) -> None:
        self.model = model
        self.device = model.device
        self._dimension = dimension
        self._names = model_inputs(model)

    def __call__(self, tokens: Tokens, prompt_tokens: int) -> Any:
        return self.compute(self.to_device(tokens), prompt_tokens)

    def to_device(self, tokens: Tokens) -> dict[str, Any]:
        """The model's inputs on its device; to a GPU from pinned memory, without waiting."""
        import torch

        arrays: dict[str, Int64] = {
            "input_ids": tokens.ids,
            "attention_mask": tokens.mask,
            "token_type_ids": tokens.type_ids,
        }
        features = {}
        for name in self._names:
            tensor = torch.from_numpy(arrays[name])
            if self.device.type == "cuda":
                tensor = tensor.pin_memory()
            features[name] = tensor.to(self.device, non_blocking=True)
        return features

    def compute(self, features: dict[str, Any], prompt_tokens: int) -> Any:
        import torch

        given = {**features, "prompt_length": prompt_tokens}
        pooled = self.model(given)["sentence_embedding"][:, : self._dimension]
        return torch.nn.functional.normalize(pooled.float(), p=2, dim=-1)

    def warm(self) -> None:
        """Nothing to prepare: PyTorch does at the first batch."""

    def release(self) -> None:
        if self.device.type == "cuda":
            import torch

            torch.cuda.empty_cache()


def model_inputs(model: Any) -> tuple[str, ...]:
    """What the transformer is given, as `input_names` says."""
    return input_names(model[0].auto_model.forward, model.tokenizer)

"""A cross-encoder on PyTorch, through sentence-transformers: for GPUs, and for exporting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from rag.errors import ConfigurationError, RerankerFailure
from rag.models import layout
from rag.models.cross_encoder import CrossEncoderConfig, score_pairs
from rag.models.onnx_session import first_line
from rag.models.pairs import PairTokenizer
from rag.models.tokenizer import Tokens
from rag.models.torch_embedder import tokenizer_of
from rag.models.torch_loading import Dtype, input_names, load_model
from rag.types import Float32

DEFAULT_BATCH_TOKENS = 32768


class TorchReranker:
    """A `Reranker` over a cross-encoder's folder, as sentence-transformers saves it.

    `device` is 'cpu', 'cuda' or 'cuda:N'. Weights come from safetensors, and no code of the
    folder's own is run. Only the passage is cut to fit (see `PairTokenizer`). Scores
    are float32 whatever `dtype` computes them. Raises ConfigurationError for any other folder,
    and for a package or a device that is not there.
    """

    concurrency = 1

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "cpu",
        dtype: Dtype = "float32",
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
    ) -> None:
        if dtype not in get_args(Dtype):
            raise ConfigurationError(f"the dtype {dtype!r} is not one of {get_args(Dtype)}")
        self.config = CrossEncoderConfig.read(folder)
        layout.require_safetensors(folder)
        self.model = load_cross_encoder(folder, device, dtype)
        self.tokenizer = tokenizer_of(self.model)
        self._pairs = PairTokenizer(self.tokenizer, self.config.max_tokens)
        self.inputs = classifier_inputs(self.model)
        self._max_batch_tokens = max_batch_tokens

    @property
    def name(self) -> str:
        return self.config.name

    def score(self, query: str, texts: Sequence[str], *, deadline: float | None = None) -> Float32:
        return score_pairs(
            self._run,
            self._pairs,
            self.config,
            query,
            texts,
            max_batch_tokens=self._max_batch_tokens,
            deadline=deadline,
        )

    def close(self) -> None:
        """Nothing is held but memory."""

    def _run(self, tokens: Tokens) -> Any:
        import torch

        arrays = {
            "input_ids": tokens.ids,
            "attention_mask": tokens.mask,
            "token_type_ids": tokens.type_ids,
        }
        classifier = self.model.model
        try:
            with torch.inference_mode():
                features = {
                    name: torch.from_numpy(arrays[name]).to(classifier.device)
                    for name in self.inputs
                }
                return classifier(**features, return_dict=True).logits.float().cpu().numpy()
        except RuntimeError as error:
            raise RerankerFailure(
                f"the reranker {self.name} failed: {first_line(error)}"
            ) from error


def load_cross_encoder(folder: Path, device: str = "cpu", dtype: Dtype = "float32") -> Any:
    """The CrossEncoder in `folder`, in eval mode; raises as `load_model` does."""
    model = load_model("CrossEncoder", folder, device, dtype)
    model.model.eval()
    return model


def classifier_inputs(model: Any) -> tuple[str, ...]:
    """What the classifier is given, as `input_names` says."""
    return input_names(model.model.forward, model.tokenizer)

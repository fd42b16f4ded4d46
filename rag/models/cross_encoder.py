"""A cross-encoder's folder, and what its runtimes share: pairs, batches, activation. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rag.errors import ConfigurationError, RerankerFailure, RerankerTimeout
from rag.models import layout
from rag.models.batches import length_batches
from rag.models.encoder import stated_max_tokens
from rag.models.pairs import PairTokenizer
from rag.models.tokenizer import Tokens
from rag.types import Float32

Activation = Literal["sigmoid", "identity"]
ACTIVATIONS: dict[str, Activation] = {"Sigmoid": "sigmoid", "Identity": "identity"}
DEFAULT_BATCH_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class CrossEncoderConfig:
    """A model that reads a query and a passage together and gives one logit.

    `max_tokens` bounds a pair, special tokens included; `activation` turns the logit into a score.
    """

    name: str
    max_tokens: int
    activation: Activation

    @classmethod
    def read(cls, folder: Path) -> CrossEncoderConfig:
        """What the files in `folder` state; ConfigurationError for any other kind of model.

        The activation is the one that sentence-transformers would use: of
        config_sentence_transformers.json, else of config.json, else a sigmoid.
        """
        model = layout.read_json(folder / "config.json")
        architecture = next(iter(model.get("architectures") or []), "")
        if not architecture.endswith("ForSequenceClassification"):
            raise ConfigurationError(
                f"{folder} is not a cross-encoder (its architecture is {architecture or 'none'});"
                " name a folder with a model for sequence classification"
            )
        labels = len(model.get("id2label") or (0, 1))  # two is what an absent map means
        if labels != 1:
            raise ConfigurationError(
                f"{folder} gives {labels} labels for a pair; choose a cross-encoder with one"
            )
        return cls(folder.resolve().name, stated_max_tokens(folder, model), _activation(folder))


def _activation(folder: Path) -> Activation:
    model = layout.read_json(folder / "config.json")
    stated = (
        layout.read_json(folder / "config_sentence_transformers.json").get("activation_fn")
        or (model.get("sentence_transformers") or {}).get("activation_fn")
        or model.get("sbert_ce_default_activation_function")
        or "torch.nn.Sigmoid"
    )
    found = ACTIVATIONS.get(str(stated).rsplit(".", 1)[-1])
    if found is None or not str(stated).startswith("torch.nn."):
        raise ConfigurationError(
            f"{folder} asks for the activation {stated}; known are torch.nn.Sigmoid and"
            " torch.nn.Identity"
        )
    return found


def score_pairs(
    run: Callable[[Tokens], Any],
    tokenizer: PairTokenizer,
    config: CrossEncoderConfig,
    query: str,
    texts: Sequence[str],
    *,
    max_batch_tokens: int,
    deadline: float | None,
) -> Float32:
    """float32 (len(texts),): `run` on pairs of like length, then the activation, in their order.

    `run` takes padded tokens of m pairs and gives their logits, float (m, 1). Raises
    RerankerTimeout where `deadline` passes before the last batch is begun, RerankerFailure for a
    score that is not finite.
    """
    encodings = tokenizer.tokenize(query, texts)
    lengths = np.array([len(encoding) for encoding in encodings], dtype=np.int64)
    logits = np.empty(len(texts), dtype=np.float32)
    for rows in length_batches(lengths, max_batch_tokens):
        if deadline is not None and time.monotonic() >= deadline:
            raise RerankerTimeout(
                f"the reranker {config.name} had not read {len(texts)} passages at the deadline;"
                " raise it, or rerank fewer"
            )
        logits[rows] = np.asarray(run(tokenizer.pad([encodings[row] for row in rows])))[:, 0]
    if not np.isfinite(logits).all():
        raise RerankerFailure(
            f"the reranker {config.name} gave a score that is not a number; use float32"
        )
    return logits if config.activation == "identity" else _sigmoid(logits)


def _sigmoid(logits: Float32) -> Float32:
    # By the sign, so that exp never overflows.
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)

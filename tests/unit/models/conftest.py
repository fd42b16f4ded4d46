"""Tiny random encoders of several architectures, made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
"""In RoBERTa's order: the padding's id is 1, so positions start at 2 there."""
MakeEncoder = Callable[..., Path]


def _tokenizer(decoder: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from rag.models.golden import TEXTS

    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(list(TEXTS.values()), trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>" if decoder else "<s> $A </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", model_max_length=40,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


def _transformer(architecture: str, vocabulary: int) -> Any:
    import transformers as tf

    # A wide initialisation, or all texts of a random model come out alike.
    shape = {
        "vocab_size": vocabulary, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 64, "initializer_range": 0.4,
        "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    }  # fmt: skip
    makers: dict[str, Callable[[], Any]] = {
        "bert": lambda: tf.BertModel(tf.BertConfig(max_position_embeddings=40, **shape)),
        "xlm-roberta": lambda: tf.XLMRobertaModel(
            tf.XLMRobertaConfig(max_position_embeddings=42, type_vocab_size=1, **shape)
        ),
        "mpnet": lambda: tf.MPNetModel(tf.MPNetConfig(max_position_embeddings=42, **shape)),
        "qwen3": lambda: tf.Qwen3Model(
            tf.Qwen3Config(max_position_embeddings=64, num_key_value_heads=2, head_dim=8, **shape)
        ),
    }
    return makers[architecture]().eval()


@pytest.fixture
def make_encoder(tmp_path: Path) -> MakeEncoder:
    """make_encoder(architecture, pooling, dense=…, include_prompt=…, prompts=…) -> its folder.

    A sentence-transformers folder with random weights (fixed seed), width 32, 40 tokens at most.
    """

    def make(
        architecture: str,
        pooling: str | Sequence[str] = "mean",
        *,
        dense: int | None = None,
        include_prompt: bool = True,
        prompts: dict[str, str] | None = None,
    ) -> Path:
        import torch
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Dense, Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling

        torch.manual_seed(7)
        plain, folder = tmp_path / "plain", tmp_path / f"tiny-{architecture}"
        tokenizer = _tokenizer(decoder=architecture == "qwen3")
        tokenizer.save_pretrained(plain)
        _transformer(architecture, len(tokenizer)).save_pretrained(plain)
        modes = pooling if isinstance(pooling, str) else tuple(pooling)
        steps: list[Any] = [
            Transformer(str(plain)),
            Pooling(32, pooling_mode=modes, include_prompt=include_prompt),
        ]
        if dense is not None:
            steps.append(Dense(steps[-1].pooling_output_dimension, dense))
        model = SentenceTransformer(modules=steps, device="cpu", prompts=prompts or {})
        model.save(str(folder), create_model_card=False)
        return folder

    return make

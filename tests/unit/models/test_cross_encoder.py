"""What a cross-encoder's folder must say, how pairs are cut, and what an export refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import ConfigurationError, RerankerFailure
from rag.models.cross_encoder import CrossEncoderConfig, score_pairs
from rag.models.load_reranker import RerankerSpec, load_reranker
from rag.models.pairs import PairTokenizer
from rag.models.tokenizer import Tokenizer, Tokens


def write(folder: Path, name: str = "config.json", **fields: Any) -> Path:
    stated = {
        "architectures": ["BertForSequenceClassification"],
        "id2label": {"0": "LABEL_0"},
        "max_position_embeddings": 512,
    }
    value = stated | fields if name == "config.json" else fields
    (folder / name).write_text(json.dumps(value), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("fields", "activation"),
    [
        ({}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.Identity"}}, "identity"),
        (
            {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
            "identity",
        ),
        (
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
            "sigmoid",
        ),
    ],
)
def test_the_activation_is_the_one_the_folder_states(
    tmp_path: Path, fields: Any, activation: str
) -> None:
    assert CrossEncoderConfig.read(write(tmp_path, **fields)).activation == activation


def test_config_sentence_transformers_wins(tmp_path: Path) -> None:
    write(tmp_path, sentence_transformers={"activation_fn": "torch.nn.Sigmoid"})
    write(tmp_path, "config_sentence_transformers.json", activation_fn="torch.nn.Identity")
    assert CrossEncoderConfig.read(tmp_path).activation == "identity"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"architectures": ["BertModel"]}, "is not a cross-encoder"),
        ({"architectures": ["Qwen3ForCausalLM"]}, "architecture is Qwen3ForCausalLM"),
        ({"architectures": None}, "architecture is none"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "gives 3 labels"),
        ({"id2label": None}, "gives 2 labels"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.ReLU"}}, "activation torch.nn.ReLU"),
        ({"sentence_transformers": {"activation_fn": "evil.Sigmoid"}}, "activation evil.Sigmoid"),
    ],
)
def test_other_models_are_refused_by_name(tmp_path: Path, fields: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        CrossEncoderConfig.read(write(tmp_path, **fields))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def tokenizer(encoder_source: Path) -> Tokenizer:
    return Tokenizer.load(encoder_source)


@pytest.mark.parametrize("query", ["how long is the leave", "연차 휴가는 며칠인가요"])
def test_only_the_passage_is_cut(tokenizer: Tokenizer, query: str) -> None:
    pairs = PairTokenizer(tokenizer, 64)
    asked = tokenizer.tokenize([query], 4000)[0].ids
    for text in ("", "short", "한국어 문장입니다. " * 30, "word " * 100):
        (pair,) = pairs.tokenize(query, [text])
        assert pair.ids[: pair.type_ids.count(0)] == asked
        assert len(pair) <= 64
    (full,) = pairs.tokenize(query, ["word " * 100])
    assert len(full) == 64
    assert full.special_tokens_mask[-1] == 1


def test_a_pair_that_fits_is_what_the_tokenizer_makes(tokenizer: Tokenizer) -> None:
    from tokenizers import Tokenizer as Backend

    backend = Backend.from_str(tokenizer.to_json())
    expected = backend.encode("reset the lamp", "전원 단추를 누르세요")
    (made,) = PairTokenizer(tokenizer, 128).tokenize("reset the lamp", ["전원 단추를 누르세요"])
    assert (made.ids, made.type_ids) == (expected.ids, expected.type_ids)


def test_a_query_longer_than_half_leaves_half_to_the_passage(tokenizer: Tokenizer) -> None:
    (pair,) = PairTokenizer(tokenizer, 43).tokenize("why " * 500, ["word " * 500])
    assert len(pair) == 43
    assert [pair.type_ids.count(kind) for kind in (0, 1)] == [22, 21]  # [CLS], [SEP]; [SEP]


def test_a_limit_without_room_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigurationError, match="max_tokens is 4, which leaves no room"):
        PairTokenizer(tokenizer, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_a_failure(tokenizer: Tokenizer, value: float) -> None:
    def run(tokens: Tokens) -> Any:
        return np.full((len(tokens.ids), 1), value, dtype=np.float32)

    with pytest.raises(RerankerFailure, match="not a number"):
        score_pairs(
            run, PairTokenizer(tokenizer, 64), CrossEncoderConfig("m", 64, "sigmoid"), "a", ["b"],
            max_batch_tokens=64, deadline=None,
        )  # fmt: skip


def test_batches_keep_the_budget_and_a_sigmoid_never_overflows(tokenizer: Tokenizer) -> None:
    shapes = []
    logits = iter([1e4, -1e4, 0.0, 88.0, -88.0, 3.0])

    def run(tokens: Tokens) -> Any:
        shapes.append(tokens.ids.shape)
        return np.array([[next(logits)] for _ in tokens.ids], dtype=np.float32)

    texts = ["word " * n for n in (3, 40, 3, 20, 40, 1)]
    with np.errstate(all="raise", under="ignore"):
        scores = score_pairs(
            run, PairTokenizer(tokenizer, 64), CrossEncoderConfig("m", 64, "sigmoid"), "a", texts,
            max_batch_tokens=100, deadline=None,
        )  # fmt: skip
    assert all(rows * width <= 100 for rows, width in shapes)
    assert [width for _, width in shapes] == sorted((w for _, w in shapes), reverse=True)
    # The longest first, ties as given: texts 1, 4, 3, 0, 2, 5.
    np.testing.assert_allclose(scores, [1, 1, 0, 0.5, 0, 1 / (1 + np.exp(-3.0))], atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"backend": "bm25"}, "not one of onnx, torch, remote"),
        ({"backend": "onnx"}, "the onnx reranker needs the path"),
        ({"backend": "torch"}, "the torch reranker needs the path"),
        ({"backend": "remote"}, "needs the URL"),
        ({"backend": "onnx", "path": Path("/x"), "device": "cuda"}, "choose torch"),
        ({"backend": "torch", "path": Path("/x"), "dtype": "int8"}, "dtype 'int8'"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(spec: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_reranker(RerankerSpec(**spec))


def test_a_folder_without_a_graph_or_safetensors_is_refused(
    cross_encoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"onnx/model\.onnx; export the model again"):
        load_reranker(RerankerSpec("onnx", path=cross_encoder))
    with pytest.raises(ConfigurationError, match="CUDA devices found"):
        load_reranker(RerankerSpec("torch", path=cross_encoder, device="cuda:99"))
    pickled = tmp_path / "pickled"
    shutil.copytree(cross_encoder, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match="pickle"):
        load_reranker(RerankerSpec("torch", path=pickled))


def test_the_export_command(exported_cross_encoder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rag.models.export_reranker"]
    used = subprocess.run(command, capture_output=True, text=True)
    assert (used.returncode, used.stderr.split()[0]) == (2, "usage:")
    full = [*command, str(exported_cross_encoder), str(exported_cross_encoder)]
    refused = subprocess.run(full, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.strip().endswith("export the reranker into a new folder")

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rag.errors import ConfigurationError
from rag.models.encoder import DEFAULT, EncoderConfig, from_reference, reference, resolve
from rag.models.prompts import model_prompts

BERT = {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 8,
        "max_position_embeddings": 64}  # fmt: skip
BGE = "Represent this sentence for searching relevant passages: "
TRANSFORMER = "sentence_transformers.models.Transformer"
POOLING = "sentence_transformers.models.Pooling"


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


def encoder(folder: Path, *, modules: list[str] | None = None, **config: Any) -> Path:
    """A folder that says what an encoder's says; the weights are a stand-in that is only hashed."""
    write(folder, "config.json", {**BERT, **config})
    types = [TRANSFORMER, POOLING] if modules is None else modules
    write(folder, "modules.json", [
        {"idx": n, "name": str(n), "path": f"{n}_{kind.rsplit('.')[-1]}" if n else "", "type": kind}
        for n, kind in enumerate(types)
    ])  # fmt: skip
    write(folder, "1_Pooling/config.json", {"word_embedding_dimension": 8})
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_the_default_encoder_is_read_without_torch() -> None:
    for name in ("default", "all-MiniLM-L6-v2", DEFAULT):
        config = EncoderConfig.read(resolve(name))
        assert (config.name, config.dimension, config.max_tokens) == (DEFAULT, 384, 256)
        assert (config.pooling, config.prompts) == ("mean", {"query": "", "passage": ""})
        assert (config.truncate_dim, config.include_prompt) == (None, True)


def test_a_reference_gives_the_config_back(tmp_path: Path) -> None:
    config = EncoderConfig.read(encoder(tmp_path), prompts={"query": "질의: "}, truncate_dim=4)
    raw = json.loads(json.dumps(reference(config)))
    assert from_reference(raw, "manifest.json") == config
    assert config.dimension == config.truncate_dim == 4
    with pytest.raises(ConfigurationError, match=r"manifest\.json does not describe an encoder"):
        from_reference({**raw, "more": 1}, "manifest.json")


def test_the_digest_is_of_contents_and_not_of_the_place(tmp_path: Path) -> None:
    one = encoder(tmp_path / "one")
    digest = EncoderConfig.read(one).digest
    two = Path(shutil.copytree(one, tmp_path / "elsewhere" / "two"))
    for name in ("README.md", "golden.json", "onnx/model.onnx"):
        write(two, name, "not part of it")
    assert EncoderConfig.read(two).digest == digest
    changes = {
        "config.json": json.dumps({**BERT, "hidden_act": "relu"}),
        "tokenizer.json": "{}",
        "model.safetensors": "other",
        "1_Pooling/config.json": json.dumps({"pooling_mode": "cls"}),
    }
    seen = {digest}
    for name, text in changes.items():
        (two / name).write_text(text)
        seen.add(EncoderConfig.read(two).digest)
    assert len(seen) == 1 + len(changes)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "cls+mean"),
        ({"pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
        ({"pooling_mode": ["max", "mean_sqrt_len_tokens"]}, "max+mean_sqrt_len_tokens"),
    ],
)
def test_pooling_is_read_in_both_styles(
    tmp_path: Path, config: dict[str, Any], pooling: str
) -> None:
    write(encoder(tmp_path), "1_Pooling/config.json", {"word_embedding_dimension": 8, **config})
    read = EncoderConfig.read(tmp_path)
    assert read.pooling == pooling
    assert read.dimension == 8 * len(read.pooling_modes)


@pytest.mark.parametrize(
    ("model", "files", "expected"),
    [
        ({}, {}, 64),
        ({}, {"sentence_bert_config.json": {"max_seq_length": 32}}, 32),
        ({}, {"sentence_roberta_config.json": {"max_seq_length": 32}}, 32),
        ({}, {"tokenizer_config.json": {"model_max_length": 48}}, 48),
        ({}, {"tokenizer_config.json": {"model_max_length": 10**30}}, 64),
        ({}, {"sentence_bert_config.json": {"max_seq_length": 500}}, 64),
        ({"model_type": "xlm-roberta", "pad_token_id": 1}, {}, 62),
        ({"max_position_embeddings": -1}, {}, 512),
    ],
)
def test_max_tokens(
    tmp_path: Path, model: dict[str, Any], files: dict[str, Any], expected: int
) -> None:
    encoder(tmp_path, **model)
    for name, content in files.items():
        write(tmp_path, name, content)
    assert EncoderConfig.read(tmp_path).max_tokens == expected


def test_what_cannot_be_given_is_refused(tmp_path: Path) -> None:
    folder = encoder(tmp_path)
    assert EncoderConfig.read(folder, max_tokens=64).max_tokens == 64
    with pytest.raises(ConfigurationError, match="max_tokens is 65"):
        EncoderConfig.read(folder, max_tokens=65)
    with pytest.raises(ConfigurationError, match="truncate_dim is 9"):
        EncoderConfig.read(folder, truncate_dim=9)
    with pytest.raises(ConfigurationError, match="'document'"):
        EncoderConfig.read(folder, prompts={"document": "x"})
    write(folder, "1_Pooling/config.json", {"pooling_mode": "median"})
    with pytest.raises(ConfigurationError, match="'median'"):
        EncoderConfig.read(folder)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"modules": [TRANSFORMER, POOLING, "sentence_transformers.models.CNN"]}, "models.CNN"),
        ({"modules": [TRANSFORMER, POOLING, "custom_code.Dense"]}, "custom_code.Dense"),
        ({"modules": [TRANSFORMER]}, "not a text encoder"),
        ({"modules": [], "architectures": ["XForSequenceClassification"]}, "not a text encoder"),
    ],
)
def test_models_that_are_no_encoders_are_refused(
    tmp_path: Path, made: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        EncoderConfig.read(encoder(tmp_path, **made))
    assert "\n" not in str(caught.value)


def test_rerankers_and_pickles_are_refused(tmp_path: Path) -> None:
    folder = encoder(tmp_path, architectures=["XLMRobertaForSequenceClassification"])
    (folder / "modules.json").unlink()
    with pytest.raises(ConfigurationError, match=r"reranker \(XLMRobertaForSequence"):
        EncoderConfig.read(folder)
    write(folder, "config_sentence_transformers.json", {"model_type": "CrossEncoder"})
    with pytest.raises(ConfigurationError, match="is a CrossEncoder"):
        EncoderConfig.read(folder)
    pickled = encoder(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match="pickle"):
        EncoderConfig.read(pickled)
    with pytest.raises(ConfigurationError, match=r"no config\.json"):
        EncoderConfig.read(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "stated", "query", "passage"),
    [
        ("intfloat/multilingual-e5-small", {}, "query: ", "passage: "),
        ("intfloat/e5-base-v2", {"query": "", "document": ""}, "query: ", "passage: "),
        ("nlpai-lab/KoE5", {}, "query: ", "passage: "),
        ("BAAI/bge-small-en-v1.5", {}, BGE, ""),
        ("BAAI/bge-m3", {}, "", ""),
        ("thenlper/gte-base", {}, "", ""),
        ("somebody/else", {}, "", ""),
        ("intfloat/e5-base", {"query": "Q ", "passage": "P "}, "Q ", "P "),
        ("somebody/else", {"query": "Q ", "document": "D "}, "Q ", "D "),
    ],
)  # fmt: skip
def test_prompts(name: str, stated: dict[str, str], query: str, passage: str) -> None:
    assert model_prompts(name, {"prompts": stated}) == {"query": query, "passage": passage}


def test_a_default_prompt_stands_in_and_overrides_win(tmp_path: Path) -> None:
    stated = {"prompts": {"all": "문장: ", "query": "질의: "}, "default_prompt_name": "all"}
    write(encoder(tmp_path), "config_sentence_transformers.json", stated)
    assert EncoderConfig.read(tmp_path).prompts == {"query": "질의: ", "passage": "문장: "}
    none = EncoderConfig.read(tmp_path, prompts={"query": "", "passage": ""})
    assert none.prompts == {"query": "", "passage": ""}


def test_resolve_takes_folders_and_refuses_what_is_nowhere(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == tmp_path
    with pytest.raises(ConfigurationError, match="no encoder 'nowhere'"):
        resolve("nowhere")


def test_a_hub_model_offline_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigurationError, match="cannot be fetched from the model hub") as caught:
        resolve("nobody/no-such-encoder@main")
    assert "\n" not in str(caught.value)

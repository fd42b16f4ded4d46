from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import BuildError, ConfigurationError
from rag.models import onnx_graph
from rag.models.encoder import EncoderConfig
from rag.models.export import export_encoder
from rag.models.golden import check_golden, required_cosine
from rag.models.onnx_embedder import PACKED, OnnxEmbedder
from rag.models.onnx_graph import export_graph
from rag.models.torch_embedder import TorchEmbedder, load_sentence_transformer

MakeEncoder = Callable[..., Path]
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
TEXTS = [
    "a", "", "How many days of notice?", "계약을 해지하려면 며칠 전에 알려야 하나요?",
    "def mean(v):\n    return sum(v) / len(v)", "a text that does not fit " * 20,
]  # fmt: skip
PROMPTS = {"query": "query: ", "document": "문서: "}


def plain(folder: Path, prompt: str, config: EncoderConfig) -> np.ndarray:
    """What sentence-transformers gives on its own, one text at a time."""
    model: Any = load_sentence_transformer(folder)
    model.max_seq_length = config.max_tokens
    return np.vstack(
        [
            model.encode(
                [text], prompt=prompt, truncate_dim=config.truncate_dim, normalize_embeddings=True
            )
            for text in TEXTS
        ]
    )


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize(
    ("architecture", "made", "read"),
    [
        ("bert", {"pooling": MODES}, {}),
        ("bert", {"pooling": MODES, "include_prompt": False, "prompts": PROMPTS}, {}),
        ("xlm-roberta", {"prompts": PROMPTS, "dense": 24}, {"truncate_dim": 10}),
        ("mpnet", {"pooling": "cls"}, {"max_tokens": 16, "prompts": {"query": "find: "}}),
        ("qwen3", {"pooling": "lasttoken", "prompts": PROMPTS}, {}),
    ],
)
def test_an_export_gives_what_sentence_transformers_gives(
    make_encoder: MakeEncoder,
    tmp_path: Path,
    architecture: str,
    made: dict[str, Any],
    read: dict[str, Any],
) -> None:
    source, target = make_encoder(architecture, **made), tmp_path / "exported"
    config = EncoderConfig.read(source, **read)
    measured = export_encoder(source, target, config=config)
    assert measured["float32"]["cosine_min"] >= 0.9999
    assert 0.5 < measured["int8"]["cosine_min"] <= measured["int8"]["cosine_mean"] <= 1.0001
    assert EncoderConfig.read(target) == config

    onnx, torch = OnnxEmbedder(target), TorchEmbedder(target)
    for role, prompt in config.prompts.items():
        expected = plain(source, prompt, config)
        # Texts must differ, or any pooling would do.
        assert (expected[0] @ expected[2:].T).max() < 0.99
        for embedder in (onnx, torch):
            got = (
                embedder.embed_queries(TEXTS) if role == "query" else embedder.embed_passages(TEXTS)
            )
            for part in range(len(config.pooling_modes)):
                width = config.dimension // len(config.pooling_modes)
                span = slice(part * width, (part + 1) * width)
                assert cosines(got[:, span], expected[:, span]).min() > 0.9999
        again = plain(target, prompt, config)
        assert cosines(again, expected).min() > 0.9999
    for precision in ("float32", "int8"):
        small = OnnxEmbedder(target, precision=precision)
        check_golden(small, target, min_cosine=required_cosine(precision, measured))


def test_a_plain_transformer_is_exported_with_mean_pooling(
    make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    source = make_encoder("bert")
    for name in ("modules.json", "config_sentence_transformers.json", "1_Pooling/config.json"):
        (source / name).unlink()
    config = EncoderConfig.read(source)
    assert (config.pooling, config.dimension, config.max_tokens) == ("mean", 32, 40)
    target = tmp_path / "exported"
    export_encoder(source, target, config=config)
    model: Any = load_sentence_transformer(target)
    got = OnnxEmbedder(target).embed_passages(TEXTS)
    assert cosines(model.encode(TEXTS), got).min() > 0.9999


def test_exports_are_equal_bytes_and_weights_can_be_left_out(
    make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    source = make_encoder("bert", dense=8)
    config = EncoderConfig.read(source)
    digests = {}
    for weights in (True, False):
        target = tmp_path / f"weights-{weights}"
        export_encoder(source, target, config=config, safetensors=weights)
        digests[weights] = {
            path.relative_to(target).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in target.rglob("*")
            if path.is_file()
        }
    left_out = {"model.safetensors", "2_Dense/model.safetensors"}
    assert left_out | {"onnx/model.onnx", "onnx/model_int8.onnx", "golden.json"} <= set(
        digests[True]
    )
    assert digests[False] == {k: v for k, v in digests[True].items() if k not in left_out}
    # No trace of where it was made.
    assert str(tmp_path).encode() not in (target / "onnx/model.onnx").read_bytes()
    assert EncoderConfig.read(target) == config
    assert OnnxEmbedder(target).embed_queries(["x"]).shape == (1, 8)
    with pytest.raises(ConfigurationError, match=r"no model\.safetensors"):
        TorchEmbedder(target)


def test_large_weights_go_into_a_file_of_their_own(
    make_encoder: MakeEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = make_encoder("bert"), tmp_path / "exported"
    monkeypatch.setattr(onnx_graph, "ONE_FILE_BYTES", 1)
    measured = export_encoder(source, target, config=EncoderConfig.read(source))
    assert not (target / "onnx/model.onnx.data").exists()
    assert (target / "onnx/model_int8.onnx.data").stat().st_size > 10_000
    assert measured["float32"]["cosine_min"] > 0.9999


def test_a_graph_that_differs_is_refused(
    make_encoder: MakeEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = EncoderConfig.read(make_encoder("bert", "cls"))

    def export_wrongly(model: Any, config: EncoderConfig, *given: Any) -> None:
        export_graph(model, wrong, *given)

    monkeypatch.setattr("rag.models.export.export_graph", export_wrongly)
    source = make_encoder("bert", "mean")
    with pytest.raises(BuildError, match="on the probe"):
        export_encoder(source, tmp_path / "exported", config=EncoderConfig.read(source))


def test_a_full_target_and_a_foreign_config_are_refused(
    make_encoder: MakeEncoder, tmp_path: Path, encoder_source: Path
) -> None:
    source = make_encoder("bert")
    with pytest.raises(ConfigurationError, match="not empty"):
        export_encoder(source, source, config=EncoderConfig.read(source))
    with pytest.raises(ConfigurationError, match="is not the encoder"):
        export_encoder(source, tmp_path / "x", config=EncoderConfig.read(encoder_source))


@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta"])
def test_a_packed_graph_gives_what_the_padded_one_gives(
    make_encoder: MakeEncoder, tmp_path: Path, architecture: str
) -> None:
    source, target = make_encoder(architecture, pooling=MODES), tmp_path / "exported"
    export_encoder(source, target, config=EncoderConfig.read(source))
    packed, padded = OnnxEmbedder(target), OnnxEmbedder(target, packed=False)
    # Whatever they are computed with: alone, in one run, in several, in batches of little room.
    expected = padded.embed_passages(TEXTS)
    assert np.abs(packed.embed_passages(TEXTS) - expected).max() < 1e-6
    for place, text in enumerate(TEXTS):
        assert np.abs(packed.embed_passages([text])[0] - expected[place]).max() < 1e-6
    many = packed.embed_passages(TEXTS * 20)
    assert np.abs(many - np.tile(expected, (20, 1))).max() < 1e-6
    small = OnnxEmbedder(target, max_batch_tokens=48)
    assert np.abs(small.embed_passages(TEXTS) - expected).max() < 1e-6


def test_both_float32_graphs_share_their_weights(
    exported_encoder: Path, make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    sizes = {path.name: path.stat().st_size for path in (exported_encoder / "onnx").iterdir()}
    assert {"model.onnx", "model_packed.onnx", "model_int8.onnx", "weights.bin"} == set(sizes)
    weights = (exported_encoder / "model.safetensors").stat().st_size
    assert sizes["weights.bin"] < 1.1 * weights
    # Where positions cannot be given by number there is no packed graph, and none is missed.
    source, target = make_encoder("mpnet"), tmp_path / "exported"
    export_encoder(source, target, config=EncoderConfig.read(source))
    assert not (target / PACKED).exists()
    assert OnnxEmbedder(target).embed_queries(["x"]).shape == (1, 32)

"""An encoder's folder for a bundle: its own layout, ONNX graphs, golden vectors, all verified."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag.errors import BuildError, ConfigurationError
from rag.models import golden, layout
from rag.models.encoder import REFERENCE_FILE, EncoderConfig, reference
from rag.models.onnx_embedder import GRAPHS, PACKED, WEIGHTS, OnnxEmbedder, Precision
from rag.models.onnx_graph import export_graph, quantize_graph
from rag.models.onnx_weights import share_weights
from rag.models.packed_graph import PACKABLE, PackedTransformer
from rag.models.torch_embedder import TorchEmbedder, tokenizer_of
from rag.types import Float32

_LONGEST_PROBE = 1024
# Loadable by every release of sentence-transformers, unlike the newer class paths.
_TYPES = "sentence_transformers.models."


def export_encoder(
    source: Path, target: Path, *, config: EncoderConfig, safetensors: bool = True
) -> dict[str, Any]:
    """Writes the encoder in `source` to the new folder `target`, and verifies what was written.

    `target` gets the sentence-transformers layout with prompts and limits made explicit, the
    weights unless `safetensors` is False, onnx/model.onnx (float32), onnx/model_int8.onnx, for a
    model that can be packed also onnx/model_packed.onnx (see rag/models/packed_graph.py), the
    weights of the float32 graphs in onnx/weights.bin, golden.json and encoder.json, from which
    `EncoderConfig.read` gives `config` back.

    Returns {"float32": {"cosine_min", "cosine_mean"}, "int8": the same}: against
    sentence-transformers in float32, over probe texts as queries and as passages. Raises
    ConfigurationError where `config` is not of `source`, `target` is not empty, or the model
    cannot be exported; BuildError where float32 comes out below 0.9999.
    """
    if EncoderConfig.read(source).digest != config.digest:
        raise ConfigurationError(f"{source} is not the encoder {config.name} that was configured")
    if target.exists() and any(target.iterdir()):
        raise ConfigurationError(f"{target} is not empty; export the encoder into a new folder")
    embedder = TorchEmbedder(source, config=config)
    _write_layout(source, target, config, embedder.model, safetensors)
    _write_graphs(embedder.model, config, target)
    golden.write_golden(embedder, target)
    return _verify(embedder.model, target, config)


def _write_graphs(model: Any, config: EncoderConfig, target: Path) -> None:
    full = target / GRAPHS["float32"]
    full.parent.mkdir()
    export_graph(model, config, full)
    graphs = [full]
    transformer = model[0].auto_model
    if transformer.config.model_type in PACKABLE:
        graphs.append(target / PACKED)
        export_graph(model, config, target / PACKED, PackedTransformer(transformer))
    quantize_graph(graphs[-1], target / GRAPHS["int8"])
    share_weights(graphs, target / WEIGHTS)


def _write_layout(
    source: Path, target: Path, config: EncoderConfig, model: Any, safetensors: bool
) -> None:
    modules = layout.read_modules(source)
    target.mkdir(parents=True, exist_ok=True)
    for name in layout.deciding_files(source, modules):
        if safetensors or ".safetensors" not in name:
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, target / name)
    _write_modules(source, target, config)
    stated = layout.read_json(source / "config_sentence_transformers.json")
    _write_json(target / "config_sentence_transformers.json", _explicit(stated, config))
    for name in layout.TRANSFORMER_CONFIGS:
        (target / name).unlink(missing_ok=True)
    limits = layout.transformer_config(source)
    for key in ("processor_kwargs", "tokenizer_args"):
        limits.get(key, {}).pop("model_max_length", None)
    # tokenizer.json below already holds the lower-casing.
    limits |= {"max_seq_length": config.max_tokens, "do_lower_case": False}
    _write_json(target / layout.TRANSFORMER_CONFIGS[0], limits)
    (target / "tokenizer.json").write_text(tokenizer_of(model).to_json(), encoding="utf-8")
    if not (target / "tokenizer_config.json").exists():
        raise ConfigurationError(f"{source} has no tokenizer_config.json; get the model again")
    _write_json(target / REFERENCE_FILE, reference(config))


def _write_modules(source: Path, target: Path, config: EncoderConfig) -> None:
    """modules.json that ends in Normalize, with a Pooling of its own for a plain transformer."""
    path = source / "modules.json"
    entries: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    if not entries:
        entries = [_module(0, "Transformer", ""), _module(1, "Pooling", "1_Pooling")]
        pooling = {key: mode in config.pooling_modes for key, mode in layout.LEGACY_POOLING.items()}
        width = {"word_embedding_dimension": layout.hidden_size(source)}
        (target / "1_Pooling").mkdir()
        _write_json(target / "1_Pooling" / "config.json", width | pooling)
    if not str(entries[-1]["type"]).endswith(".Normalize"):
        entries.append(_module(len(entries), "Normalize", f"{len(entries)}_Normalize"))
    _write_json(target / "modules.json", entries)


def _module(index: int, kind: str, path: str) -> dict[str, Any]:
    return {"idx": index, "name": str(index), "path": path, "type": _TYPES + kind}


def _explicit(stated: dict[str, Any], config: EncoderConfig) -> dict[str, Any]:
    """config_sentence_transformers.json with the prompts under each name that is asked for."""
    query, passage = config.prompts["query"], config.prompts["passage"]
    explicit = stated | {
        "prompts": {"query": query, "document": passage, "passage": passage},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    explicit.pop("truncate_dim", None)
    if config.truncate_dim is not None:
        explicit["truncate_dim"] = config.truncate_dim
    return explicit


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def _verify(model: Any, target: Path, config: EncoderConfig) -> dict[str, Any]:
    names, texts = zip(*_probes(config).items(), strict=True)
    model.max_seq_length = config.max_tokens
    # One text at a time: whatever padding does to a model, it is not part of what is expected.
    expected = {
        prompt: np.vstack([_plain(model, text, prompt, config) for text in texts])
        for prompt in sorted(set(config.prompts.values()))
    }
    measured: dict[str, Any] = {}
    ways: list[tuple[Precision, bool]] = [("float32", False), ("int8", True)]
    if (target / PACKED).is_file():
        # It is what is measured; the graph with padding is held to the same.
        ways.insert(1, ("float32", True))
    for precision, packed in ways:
        embedder = OnnxEmbedder(target, precision=precision, packed=packed)
        embed = {
            config.prompts["passage"]: embedder.embed_passages,
            config.prompts["query"]: embedder.embed_queries,
        }
        cosines = np.stack([_cosines(embed[key](texts), expected[key]) for key in expected])
        if precision == "float32":
            _refuse_unlike(cosines, names, config)
        measured[precision] = {
            "cosine_min": round(float(cosines.min()), 6),
            "cosine_mean": round(float(cosines.mean()), 6),
        }
    return measured


def _plain(model: Any, text: str, prompt: str, config: EncoderConfig) -> Float32:
    vectors: Float32 = model.encode(
        [text],
        prompt=prompt,
        truncate_dim=config.truncate_dim,
        normalize_embeddings=True,
        show_progress_bar=False,
    )
    return vectors


def _cosines(vectors: Float32, expected: Float32) -> Float32:
    cosines = np.einsum("nd,nd->n", vectors, expected)
    return np.where(np.isfinite(cosines), cosines, np.float32(-1.0))


def _refuse_unlike(cosines: Float32, names: Sequence[str], config: EncoderConfig) -> None:
    limit = golden.MIN_COSINE["float32"]
    if float(cosines.min()) < limit:
        name = names[int(cosines.min(axis=0).argmin())]
        raise BuildError(
            f"the ONNX export of {config.name} gives a cosine of {cosines.min():.6f} with"
            f" sentence-transformers on the probe {name!r}, below {limit}; use the torch backend"
        )


def _probes(config: EncoderConfig) -> dict[str, str]:
    """The golden texts, nothing, white space, and a text that does not fit (up to a limit)."""
    words = min(config.max_tokens, _LONGEST_PROBE) + 8
    return {
        **golden.TEXTS,
        "empty": "",
        "white-space": "  two   spaces \n and a line \t",
        "too-long": "끝까지 읽지 못하는 글 a text that is cut " * (words // 8 + 1),
    }

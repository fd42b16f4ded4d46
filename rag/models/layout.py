"""A sentence-transformers folder: which files are in it, and what they say. No torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.errors import ConfigurationError

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model",
    "tokenizer.model",
)  # fmt: skip
TRANSFORMER_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
POOLING_MODES = frozenset(LEGACY_POOLING.values())
SUPPORTED_MODULES = ("Transformer", "Pooling", "Dense", "LayerNorm", "Dropout", "Normalize")


@dataclass(frozen=True, slots=True)
class Module:
    """One step of the encoder: its kind ('Pooling'), and its folder below the model ('' = root)."""

    kind: str
    path: str


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, {} if there is no file; ConfigurationError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}); get the model again") from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path} is not a JSON object; get the model again")
    return value


def read_modules(folder: Path) -> tuple[Module, ...]:
    """The steps that modules.json names, in order; () where the folder is a plain transformer.

    Raises ConfigurationError, by name, for a step that an export cannot reproduce.
    """
    path = folder / "modules.json"
    if not path.exists():
        return ()
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        listed = [(str(entry["type"]), str(entry["path"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}); get the model again") from None
    for type_name, _ in listed:
        kind = type_name.rsplit(".", 1)[-1]
        if not type_name.startswith("sentence_transformers.") or kind not in SUPPORTED_MODULES:
            raise ConfigurationError(
                f"{folder} has the module {type_name}, which cannot be reproduced here;"
                f" choose an encoder made of {', '.join(SUPPORTED_MODULES)}"
            )
    modules = tuple(Module(name.rsplit(".", 1)[-1], sub) for name, sub in listed)
    kinds = [module.kind for module in modules]
    if kinds[:1] != ["Transformer"] or kinds.count("Transformer") != 1 or "Pooling" not in kinds:
        raise ConfigurationError(
            f"{folder} is not a text encoder (its modules are {', '.join(kinds) or 'none'});"
            " an encoder is one Transformer, then Pooling"
        )
    return modules


def pooling_modes(config: dict[str, Any], where: Path) -> tuple[str, ...]:
    """The pooling modes of N_Pooling/config.json, old keys or new; several are concatenated."""
    new = config.get("pooling_mode")
    if new:
        modes = (new,) if isinstance(new, str) else tuple(str(mode) for mode in new)
    else:
        modes = tuple(mode for key, mode in LEGACY_POOLING.items() if config.get(key)) or ("mean",)
    for mode in modes:
        if mode not in POOLING_MODES:
            raise ConfigurationError(
                f"{where} asks for the pooling {mode!r};"
                f" known are {', '.join(sorted(POOLING_MODES))}"
            )
    return modes


def transformer_config(folder: Path) -> dict[str, Any]:
    """sentence_bert_config.json, or the same under one of its older names; {} if there is none."""
    for name in TRANSFORMER_CONFIGS:
        if (folder / name).exists():
            return read_json(folder / name)
    return {}


def hidden_size(folder: Path) -> int:
    """Width of a token's vector, from config.json; ConfigurationError where it is not stated."""
    model = read_json(folder / "config.json")
    text = model.get("text_config") or model
    for key in ("hidden_size", "d_model", "dim", "n_embd"):
        if isinstance(text.get(key), int):
            return int(text[key])
    raise ConfigurationError(f"{folder / 'config.json'} does not state the hidden size")


def weight_files(folder: Path, path: str = "") -> list[str]:
    """Names of the safetensors files (and their index) in folder/path, relative to `folder`."""
    root = folder / path
    found = [*root.glob("model*.safetensors"), *root.glob("model.safetensors.index.json")]
    return sorted(file.relative_to(folder).as_posix() for file in found)


def require_safetensors(folder: Path, path: str = "") -> None:
    """Raises ConfigurationError where the weights in folder/path are missing or only pickled."""
    if weight_files(folder, path):
        return
    if list((folder / path).glob("*.bin")):
        raise ConfigurationError(
            f"the weights in {folder / path} are a pickle (.bin), which is never loaded;"
            " save the model again as safetensors"
        )
    raise ConfigurationError(f"there is no model.safetensors in {folder / path}")


def deciding_files(folder: Path, modules: tuple[Module, ...]) -> list[str]:
    """Sorted names, relative to `folder`, of every file that decides a vector.

    Left out is config_sentence_transformers.json: the prompts and the truncation that it holds
    are stated in the encoder's reference, and the rest of it is library versions.
    """
    root = ("config.json", "modules.json", *TRANSFORMER_CONFIGS, *TOKENIZER_FILES)
    names = {name for name in root if (folder / name).is_file()}
    names.update(weight_files(folder))
    for module in modules:
        if module.path:
            names.update(weight_files(folder, module.path))
            if (folder / module.path / "config.json").is_file():
                names.add(f"{module.path}/config.json")
    return sorted(names)


def digest(folder: Path, names: list[str]) -> str:
    """SHA-256, 64 hex digits, over the name and the SHA-256 of each file, in the order given."""
    total = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{name}\0{content}\n".encode())
    return total.hexdigest()

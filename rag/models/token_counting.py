"""How many tokens a text has for a generator, by its own tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rag.errors import ConfigurationError


def load_token_counter(file: Path) -> Callable[[str], int]:
    """Counts with a `tokenizer.json`, as Hugging Face models have it, without special tokens.

    Raises ConfigurationError for a file that is none.
    """
    from tokenizers import Tokenizer

    path = file / "tokenizer.json" if file.is_dir() else file
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises no class of its own
        raise ConfigurationError(
            f"RAG_GENERATOR_TOKENIZER: {path} is not a tokenizer.json: {error}"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)

"""The texts that an encoder wants before a query and before a passage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rag.errors import ConfigurationError

NO_PROMPTS: Mapping[str, str] = {"query": "", "passage": ""}
_INSTRUCT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\n"
_BGE_EN = "Represent this sentence for searching relevant passages: "
_BGE_ZH = "为这个句子生成表示以用于检索相关文章："

FAMILIES: tuple[tuple[str, str, str], ...] = (
    (r"(^|[/-])(e5-mistral|(multilingual-)?e5)-.*instruct", f"{_INSTRUCT}Query: ", ""),
    (r"(^|[/-])(koe5|(multilingual-)?e5-(small|base|large))", "query: ", "passage: "),
    (r"(^|[/-])bge-(small|base|large)-en", _BGE_EN, ""),
    (r"(^|[/-])bge-(small|base|large)-zh", _BGE_ZH, ""),
    (r"(^|[/-])(mxbai-embed-large|snowflake-arctic-embed-(xs|s|m|l)($|-v1|-long))", _BGE_EN, ""),
    (r"(^|[/-])nomic-embed-text", "search_query: ", "search_document: "),
    (r"(^|[/-])(bge-m3|gte-|all-minilm|all-mpnet|paraphrase-)", "", ""),
)
"""(pattern on the lower-case name, query prompt, passage prompt), the first match counts. For
families whose model cards ask for prompts that many of their configurations do not hold."""


def model_prompts(name: str, config: Mapping[str, Any]) -> dict[str, str]:
    """The prompts of a model, with keys 'query' and 'passage'; '' where there is none.

    `config` is config_sentence_transformers.json. What it holds counts; libraries write empty
    placeholders there, so where all of it is empty the table of families is asked by `name`.
    """
    own = {key: text for key, text in (config.get("prompts") or {}).items() if text}
    if own:
        default = own.get(str(config.get("default_prompt_name")), "")
        query = own.get("query", default)
        passage = next(
            (own[key] for key in ("document", "passage", "corpus") if key in own), default
        )
        return {"query": query, "passage": passage}
    for pattern, query, passage in FAMILIES:
        if re.search(pattern, name.lower()):
            return {"query": query, "passage": passage}
    return dict(NO_PROMPTS)


def with_overrides(prompts: Mapping[str, str], given: Mapping[str, str] | None) -> dict[str, str]:
    """`prompts` with the given ones in their place; ConfigurationError for an unknown key."""
    unknown = sorted(set(given or {}) - set(NO_PROMPTS))
    if unknown:
        raise ConfigurationError(
            f"a prompt is named {unknown[0]!r}; encoder prompts are 'query' and 'passage'"
        )
    return {**prompts, **(given or {})}

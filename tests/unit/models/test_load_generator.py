from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from rag.errors import ConfigurationError
from rag.models.generator import Prompt
from rag.models.load_generator import GeneratorSpec, load_generator, read_options
from rag.models.token_counting import load_token_counter
from rag.types import Message

FAKE = "langchain_core.language_models.fake_chat_models:FakeListChatModel"


@pytest.fixture(autouse=True)
def region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-northeast-2")


@pytest.mark.parametrize(
    ("fields", "name", "endpoint"),
    [
        ({"kind": "openai", "url": "http://u:p@h:1/v1", "model": "m"}, "m", "h:1"),
        ({"kind": "sagemaker", "endpoint": "e"}, "e", "e"),
        ({"kind": "sagemaker", "endpoint": "e", "model": "m", "dialect": "tgi"}, "e/m", "e"),
        ({"kind": "bedrock", "model": "a.b-v1:0"}, "a.b-v1:0", "a.b-v1:0"),
    ],
)
def test_generators_and_the_endpoints_that_metrics_name(
    fields: Any, name: str, endpoint: str
) -> None:
    told: list[tuple[str, str]] = []
    generator = load_generator(GeneratorSpec(**fields), observe_breaker=lambda *of: told.append(of))
    assert generator.name == name
    assert told == [(endpoint, "closed")]


@pytest.mark.parametrize("path", [FAKE, f"class://{FAKE}"])
def test_a_langchain_chat_model_by_its_class(path: str) -> None:
    pytest.importorskip("langchain_core", reason="install rag-containers[langchain]")
    spec = GeneratorSpec("langchain", chat_model=path, options={"responses": ["물은 끓는다."]})

    async def ask() -> str:
        prompt = Prompt("q", [], [Message("user", "q")])
        stream = load_generator(spec).stream(prompt, deadline=time.monotonic() + 30)
        return "".join([delta.text async for delta in stream])

    assert anyio.run(ask) == "물은 끓는다."


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "oracle"}, "'oracle' is not one of"),
        ({"kind": "openai", "url": "http://h"}, "needs model"),
        ({"kind": "openai", "url": "ftp://h", "model": "m"}, "base URL"),
        ({"kind": "sagemaker"}, "needs endpoint"),
        ({"kind": "sagemaker", "endpoint": "e", "dialect": "x"}, "dialect 'x'"),
        ({"kind": "bedrock"}, "needs model"),
        ({"kind": "langchain"}, "needs chat_model"),
        ({"kind": "langchain", "chat_model": "no.such:Model"}, "cannot be imported"),
        ({"kind": "langchain", "chat_model": "nonsense"}, "cannot be imported"),
        ({"kind": "langchain", "chat_model": FAKE}, "does not take these options"),
        ({"kind": "langchain", "chat_model": "pathlib:Path"}, "is not a LangChain chat model"),
        ({"kind": "extractive"}, "needs a bundle's analyzer"),
    ],
)
def test_what_is_missing_is_told_in_one_line(fields: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        load_generator(GeneratorSpec(**fields))
    assert "\n" not in str(raised.value)


def test_a_spec_does_not_show_its_key() -> None:
    assert "sk-secret" not in repr(GeneratorSpec("openai", api_key="sk-secret"))


def test_options_are_a_json_object() -> None:
    assert read_options(None, "RAG_GENERATOR_OPTIONS") == {}
    assert read_options('{"a": 1}', "RAG_GENERATOR_OPTIONS") == {"a": 1}
    for text in ("{", "[1]"):
        with pytest.raises(ConfigurationError, match="RAG_GENERATOR_OPTIONS is not"):
            read_options(text, "RAG_GENERATOR_OPTIONS")


def test_tokens_are_counted_by_the_generators_own_tokenizer(
    encoder_source: Path, tmp_path: Path
) -> None:
    for place in (encoder_source, encoder_source / "tokenizer.json"):
        count = load_token_counter(place)
        assert count("The kettle boils.") == 5  # ke, ##ttle are two; no special tokens
        assert count("word " * 2000) == 2000  # longer than the model reads, and not cut
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="RAG_GENERATOR_TOKENIZER"):
        load_token_counter(tmp_path)

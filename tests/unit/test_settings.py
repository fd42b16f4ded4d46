"""Settings are read once, refuse what they do not know, and document themselves."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pydantic
import pytest

from rag import settings
from rag.errors import ConfigurationError


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("RAG_", "SAGEMAKER_")):
            monkeypatch.delenv(name)


def test_defaults_are_the_platforms() -> None:
    made = settings.load()
    assert (made.host, made.port, made.bundle) == ("0.0.0.0", 8080, "/opt/ml/model")
    assert made.max_payload_bytes == 25 * 1024 * 1024


def test_item_04_the_platforms_port_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_PORT", "9000")
    assert settings.load().port == 9000
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", "8123")
    assert settings.load().port == 8123


def test_batch_transform_is_told_by_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not settings.load().batch_transform
    monkeypatch.setenv("SAGEMAKER_BATCH", "True")
    assert settings.load().batch_transform


def test_only_the_platform_manages_models_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_MULTI_MODEL", "true")
    assert settings.load().multi_model
    assert not settings.load().models_keyless
    monkeypatch.setenv("SAGEMAKER_MULTI_MODEL", "true")
    assert settings.load().models_keyless
    monkeypatch.setenv("RAG_MODELS_KEYLESS", "false")
    assert not settings.load().models_keyless


def test_a_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_BUNDLE", "/a")
    assert settings.load().bundle == "/a"
    assert settings.load(bundle="/b").bundle == "/b"


def test_options_of_the_indexer_are_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_INDEXER_BACKEND", "onnx")
    settings.load()


def test_settings_are_frozen() -> None:
    with pytest.raises(pydantic.ValidationError):
        settings.load().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RAG_PROT": "1"}, r"RAG_PROT is not a setting; did you mean RAG_PORT\?"),
        ({"RAG_MAX_TOPK": "1"}, r"did you mean RAG_MAX_TOP_K\?"),
        ({"RAG_PORT": "0"}, "RAG_PORT is not valid: input should be greater"),
        ({"RAG_PORT": "tcp://10.0.0.1:80"}, "enableServiceLinks"),
        ({"SAGEMAKER_BIND_TO_PORT": "x"}, "SAGEMAKER_BIND_TO_PORT is not valid"),
        ({"SAGEMAKER_BATCH": "maybe"}, "SAGEMAKER_BATCH is not valid"),
        ({"RAG_LOG_LEVEL": "loud"}, "RAG_LOG_LEVEL is not valid: input should be 'DEBUG'"),
        ({"RAG_DEFAULT_DEADLINE_MS": "60000"}, "RAG_DEFAULT_DEADLINE_MS"),
        ({"RAG_MAX_DEADLINE_MS": "1000"}, "RAG_MAX_DEADLINE_MS"),
        ({"RAG_GENERATOR": "openai"}, "RAG_GENERATOR_URL is not set"),
        (
            {"RAG_GENERATOR_API_KEY": "k", "RAG_GENERATOR_API_KEY_FILE": "/f"},
            "both set",
        ),
        (
            {"RAG_RERANKER_API_KEY": "k", "RAG_RERANKER_API_KEY_FILE": "/f"},
            "RAG_RERANKER_API_KEY and RAG_RERANKER_API_KEY_FILE are both set",
        ),
        ({"RAG_RERANKER": "onnx"}, "RAG_RERANKER is onnx and RAG_RERANKER_PATH is not set"),
        ({"RAG_RERANKER": "remote"}, "RAG_RERANKER_URL is not set"),
        (
            {"RAG_RERANKER": "remote", "RAG_RERANKER_URL": "u", "RAG_RERANKER_DIALECT": "jina"},
            "RAG_RERANKER_DIALECT is jina and RAG_RERANKER_MODEL is not set",
        ),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=message) as raised:
        settings.load()
    assert "\n" not in str(raised.value)


def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAG_PORT", "")
    assert settings.load().port == 8080


def test_item_25_the_key_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAG_GENERATOR_API_KEY", "sk-hidden")
    made = settings.load()
    assert made.generator_key() == "sk-hidden"
    assert "sk-hidden" not in f"{made!r}{made}{made.model_dump_json()}"
    monkeypatch.delenv("RAG_GENERATOR_API_KEY")
    (tmp_path / "key").write_text("sk-from-file\n")
    monkeypatch.setenv("RAG_GENERATOR_API_KEY_FILE", str(tmp_path / "key"))
    assert settings.load().generator_key() == "sk-from-file"
    monkeypatch.setenv("RAG_GENERATOR_API_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="RAG_GENERATOR_API_KEY_FILE"):
        settings.load().generator_key()


def test_the_rerankers_key_is_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert settings.load().reranker_key() is None
    monkeypatch.setenv("RAG_RERANKER_API_KEY", "key-hidden")
    made = settings.load()
    assert made.reranker_key() == "key-hidden"
    assert "key-hidden" not in f"{made!r}{made}{made.model_dump_json()}"
    monkeypatch.delenv("RAG_RERANKER_API_KEY")
    monkeypatch.setenv("RAG_RERANKER_API_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="RAG_RERANKER_API_KEY_FILE"):
        settings.load().reranker_key()


def test_every_setting_is_in_the_table_with_a_meaning() -> None:
    lines = settings.table().splitlines()
    assert len(lines) == 2 + len(settings.Settings.model_fields)
    for name, line in zip(settings.Settings.model_fields, lines[2:], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == f"`RAG_{name.upper()}`"
        assert cells[1]
        assert len(cells[3]) > 10


def test_amounts_have_their_unit_in_the_name() -> None:
    counted = re.compile(
        r"_(ms|s|bytes|chars|tokens|items|records|threads|concurrency|in_flight|top_k|depth|attempts|failures|ratio)$|^port$"
    )
    for name, field in settings.Settings.model_fields.items():
        if field.annotation in (int, float, int | None):
            assert counted.search(name), name

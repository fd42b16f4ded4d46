"""One frozen Settings, read once at start from RAG_* variables; units are in the names."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, SettingsConfigDict

from rag.errors import ConfigurationError

PREFIX = "RAG_"
INDEXER_PREFIX = "RAG_INDEXER_"
"""Options of `rag-indexer`, which the image that indexes and serves has beside these."""
MIB = 1 << 20


def _platform(variable: str, own: str) -> AliasChoices:
    """A field whose variable the platform may set under a name of its own, which then wins."""
    return AliasChoices(variable, PREFIX + own.upper(), own)


class Settings(BaseSettings):
    """How the service runs. Each field is the variable RAG_<FIELD>, in capitals."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True,
        validate_default=True, hide_input_in_errors=True,
    )  # fmt: skip

    bundle: str = Field(
        "/opt/ml/model", description="Bundle to serve: a folder, or an s3:// address"
    )
    bundle_version: str | None = Field(
        None,
        description="Version of the root to serve and keep; unset: the current one",
    )
    follow_interval_s: float = Field(
        30.0, ge=0,
        description="Seconds between two looks at a root's current version, which is then loaded"
        " and takes over; 0: never",
    )  # fmt: skip
    multi_model: bool = Field(
        False, validation_alias=_platform("SAGEMAKER_MULTI_MODEL", "multi_model"),
        description="Many bundles, loaded and unloaded through /models; the platform sets"
        " SAGEMAKER_MULTI_MODEL",
    )  # fmt: skip
    models_dir: Path = Field(
        Path("/opt/ml/models"), description="Folder below which those bundles are"
    )
    models_memory_bytes: int | None = Field(
        None, ge=1, description="Memory for the process and its bundles; above it loading is a 507;"
        " unset: 90 % of the container's",
    )  # fmt: skip
    models_keyless: bool = Field(
        False,
        description="Managing /models needs no API key; true where the platform, which has none,"
        " has set SAGEMAKER_MULTI_MODEL",
    )
    cache_dir: Path = Field(
        Path("/tmp/rag-bundles"),  # noqa: S108 - the one place a container may write
        description="Folder that a bundle from s3:// is copied to",
    )
    host: str = Field("0.0.0.0", description="Address to listen on")  # noqa: S104 - a container
    port: int = Field(
        8080, ge=1, le=65535, validation_alias=_platform("SAGEMAKER_BIND_TO_PORT", "port"),
        description="Port to listen on; SAGEMAKER_BIND_TO_PORT wins over it",
    )  # fmt: skip

    device: str = Field(
        "auto",
        description="Where encoder and dense leg run: auto (a GPU where there is one that they can"
        " use), cpu, cuda or cuda:N; a GPU that is named and missing stops the start",
    )
    dense_device: str | None = Field(
        None,
        description="Where the dense leg runs, if not on RAG_DEVICE; cuda:0,1 is several GPUs",
    )
    dense_gpu_search: Literal["auto", "flat", "bundle"] = Field(
        "auto",
        description="What a GPU searches: flat scans all vectors as float16, bundle is the bundle's"
        " own IVF or CAGRA index; auto: flat where it fits",
    )

    encoder_backend: Literal["onnx", "torch"] = Field(
        "onnx", description="What runs the query encoder"
    )
    encoder_precision: str = Field(
        "float32", description="Export of the encoder to run, such as float32 or int8"
    )
    encoder_speedup: Literal["none", "compile", "graphs", "tensorrt"] = Field(
        "none",
        description="compile and graphs (CUDA graphs of small batches) for torch, tensorrt for onnx"
        " on a GPU",
    )
    encoder_threads: int | None = Field(
        None, ge=1, description="Threads of the encoder; unset: the CPUs this container may use"
    )

    generator: Literal["extractive", "openai", "sagemaker", "bedrock", "langchain"] = Field(
        "extractive",
        description="What writes answers: sentences of the passages, a chat endpoint, or any"
        " LangChain chat model",
    )
    generator_url: str | None = Field(
        None,
        description="Base URL of the OpenAI-compatible endpoint, such as http://host:8000/v1; for"
        " sagemaker and bedrock the runtime's address, if it is not the region's own",
    )
    generator_model: str | None = Field(
        None, description="Model to ask for at that endpoint; bedrock: its id, profile or ARN"
    )
    generator_endpoint: str | None = Field(None, description="Name of the SageMaker endpoint")
    generator_component: str | None = Field(
        None, description="Inference component to ask for at the SageMaker endpoint"
    )
    generator_dialect: Literal["messages", "lmi", "tgi"] = Field(
        "messages",
        description="What the SageMaker endpoint's container speaks; messages: OpenAI's schema",
    )
    generator_region: str | None = Field(
        None, description="AWS region of sagemaker and bedrock; unset: the environment's"
    )
    generator_streams: bool = Field(
        True, description="Ask sagemaker and bedrock for a stream, not for a whole reply"
    )
    generator_chat_model: str | None = Field(
        None, description="Class of the LangChain chat model, such as langchain_aws:ChatBedrock"
    )
    generator_options: str | None = Field(
        None,
        description="JSON object: arguments of the LangChain chat model; for the others, what is"
        " merged into each request's body",
    )
    generator_attempts: int = Field(
        3, ge=1, le=10, description="How often an endpoint is asked, before its first token"
    )
    generator_first_token_s: float | None = Field(
        None, gt=0, description="Seconds to wait for the first token; unset: the deadline"
    )
    generator_breaker_failures: int = Field(
        5, ge=1, description="Failures in a row after which an endpoint is left alone"
    )
    generator_breaker_open_s: float = Field(
        15.0, gt=0, description="Seconds for which it is, before one request tries it again"
    )
    generator_api_key: SecretStr | None = Field(None, description="Key of that endpoint")
    generator_api_key_file: Path | None = Field(
        None, description="File that holds the key, instead of the key itself"
    )
    generator_context_tokens: int = Field(
        8_192, ge=512, description="Tokens that prompt and answer may have together"
    )
    generator_tokenizer: Path | None = Field(
        None,
        description="tokenizer.json of the generator's model, to count tokens with; unset: an"
        " estimate that errs high",
    )
    generation_reserve_ms: int = Field(
        2_000,
        ge=0,
        description="Milliseconds of a deadline that are kept for the answer, at most 60 % of it",
    )

    prompt_template: str = Field("default", description="Prompt template: default, brief, detailed")
    prompt_templates: Path | None = Field(
        None,
        description="Folder of more templates, NAME.system.jinja and NAME.user.jinja; they win",
    )
    prompt_choices: str = Field(
        "", description="Names of templates, with commas, that requests may choose as well"
    )
    unsupported: Literal["flag", "drop"] = Field(
        "flag", description="Sentences that the passages do not bear out: told, or left out"
    )
    abstain_below: float | None = Field(
        None, ge=0, le=1,
        description="Probability of relevance of the best passage below which no answer is tried;"
        " unset: the calibrated one, 0: try always",
    )  # fmt: skip

    reranker: Literal["none", "onnx", "torch", "remote"] = Field(
        "none", description="What reranks for requests that ask for it; remote: an endpoint"
    )
    reranker_path: Path | None = Field(
        None, description="Folder of the cross-encoder that onnx and torch run"
    )
    reranker_device: str = Field("cpu", description="Device of the torch reranker: cpu, cuda …")
    reranker_precision: str = Field(
        "float32", description="What the torch reranker computes in: float32, float16, bfloat16"
    )
    reranker_url: str | None = Field(
        None, description="URL of the rerank endpoint, such as http://host:8080/rerank"
    )
    reranker_dialect: Literal["tei", "jina", "cohere"] = Field(
        "tei", description="What that endpoint speaks; tei: text-embeddings-inference"
    )
    reranker_model: str | None = Field(
        None, description="Model to ask for at that endpoint; jina and cohere need it"
    )
    reranker_api_key: SecretStr | None = Field(None, description="Key of that endpoint")
    reranker_api_key_file: Path | None = Field(
        None, description="File that holds the key, instead of the key itself"
    )
    reranker_depth: int = Field(
        50, ge=1, le=1000, description="Passages that are reranked, however few are asked for"
    )

    default_deadline_ms: int = Field(
        50_000, ge=1, lt=60_000, description="Deadline of requests that name none, milliseconds"
    )
    max_deadline_ms: int = Field(
        55_000, ge=1, lt=60_000, description="Longest deadline a request may ask for, milliseconds"
    )
    max_payload_bytes: int = Field(
        25 * MIB, ge=1024, description="Largest request body, bytes; above it 413"
    )
    max_query_chars: int = Field(
        8_000, ge=1, description="Longest query and longest earlier message, characters"
    )
    max_top_k: int = Field(100, ge=1, le=1000, description="Most passages a request may ask for")
    max_generation_tokens: int = Field(
        4_096, ge=1, description="Most tokens a request may ask an answer to have"
    )
    max_in_flight: int = Field(1_024, ge=1, description="Requests worked on at once; above it 429")
    max_records: int = Field(
        20_000, ge=1, description="Most lines of one JSON Lines body; above it 413"
    )
    record_concurrency: int = Field(
        32, ge=1, description="Lines of one JSON Lines body worked on at once"
    )
    batch_transform: bool = Field(
        False, validation_alias=_platform("SAGEMAKER_BATCH", "batch_transform"),
        description="Each line of a JSON Lines body has a deadline of its own, and there may be any"
        " number; the platform sets SAGEMAKER_BATCH in batch transform jobs",
    )  # fmt: skip
    batch_max_payload_bytes: int = Field(
        1024 * MIB, ge=1024,
        description="Largest JSON Lines body then, bytes, kept on disk; a line is bounded by"
        " RAG_MAX_PAYLOAD_BYTES",
    )  # fmt: skip

    api_keys: SecretStr | None = Field(
        None, description='Who may ask, as JSON (see "API keys"); unset, as the next: everybody'
    )
    api_keys_file: Path | None = Field(
        None, description="File that holds this JSON; read again when it changes"
    )

    queue_max_items: int = Field(
        1_024, ge=1, description="Queries that may wait for one stage; above it 429"
    )
    batch_max_tokens: int | None = Field(
        None, ge=1,
        description="Tokens that the encoder takes in one batch; unset: 8192 on a CPU, as many as"
        " its memory holds on a GPU",
    )  # fmt: skip
    query_cache_bytes: int = Field(
        64 * MIB, ge=0, description="Memory for vectors of queries that come again; 0: none is kept"
    )
    batch_stalled_after_s: float = Field(
        120.0, gt=0, description="Seconds that a batch may run before /ping says 503"
    )
    drain_timeout_s: float = Field(
        22.0,
        ge=0,
        le=27,
        description="Seconds for requests to end after SIGTERM; the exit takes up to 3 more",
    )
    exit_on_load_failure: bool = Field(
        True, description="Exit with code 1 when the bundle cannot be served"
    )
    log_requests: Literal["all", "failures", "none"] = Field(
        "failures", description="Which requests have a line in the log"
    )
    traces_url: str | None = Field(
        None,
        description="Where traces go: an OTLP receiver over HTTP, such as"
        " http://host:4318/v1/traces; unset: there are none",
    )
    traces_ratio: float = Field(
        1.0, ge=0, le=1, description="Share of requests traced, where the caller does not say"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log lines to write"
    )

    def generator_key(self) -> str | None:
        """The endpoint's key, from either setting; raises ConfigurationError for a bad file."""
        return _key(self.generator_api_key, self.generator_api_key_file, "generator_api_key_file")

    def reranker_key(self) -> str | None:
        """The rerank endpoint's key, likewise."""
        return _key(self.reranker_api_key, self.reranker_api_key_file, "reranker_api_key_file")


def _key(key: SecretStr | None, file: Path | None, field: str) -> str | None:
    if key is not None:
        return key.get_secret_value()
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{_variable(field)} cannot be read: {error}; name a readable text file"
        ) from None


def load(**overrides: Any) -> Settings:
    """Settings from the environment; `overrides` (from flags, by field name) win over it.

    Raises ConfigurationError, one line that names the variable, for a RAG_* variable that does
    not exist, a value that is not allowed, or settings that do not go together.
    """
    for variable in sorted(os.environ):
        if variable.startswith(PREFIX) and not _known(variable):
            raise ConfigurationError(f"{variable} is not a setting{_nearest(variable)}")
    if "SAGEMAKER_MULTI_MODEL" in os.environ and "RAG_MODELS_KEYLESS" not in os.environ:
        overrides.setdefault("models_keyless", True)
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, os.environ)) from None
    _check(settings)
    return settings


def _known(variable: str) -> bool:
    return variable.startswith(INDEXER_PREFIX) or variable in {
        _variable(name) for name in Settings.model_fields
    }


def _variable(field: str) -> str:
    return PREFIX + field.upper()


def _nearest(variable: str) -> str:
    known = [_variable(name) for name in Settings.model_fields]
    near = difflib.get_close_matches(variable, known, n=1, cutoff=0.0)
    return f"; did you mean {near[0]}?" if near else ""


def _explain(error: ValidationError, environ: Mapping[str, str]) -> str:
    """The first thing wrong, as one line without the value: it may be a secret."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = str(first["loc"][0]) if first["loc"] else "settings"
    names = _names(place)
    variable = next((name for name in names if name in environ), names[-1])
    hint = ""
    if environ.get(variable, "").startswith("tcp://"):
        hint = " (Kubernetes sets it for a service named 'rag': set enableServiceLinks to false)"
    message = first["msg"]
    return f"{variable} is not valid: {message[:1].lower()}{message[1:]}{hint}"


def _names(place: str) -> list[str]:
    """The variables that may have set the field that an error places under one of its names."""
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        names = [str(c) for c in alias.choices] if isinstance(alias, AliasChoices) else [name]
        if place in names:
            return [*names, _variable(name)]
    return [place]


def _check(settings: Settings) -> None:
    """Raises ConfigurationError for settings that do not go together."""
    if settings.default_deadline_ms > settings.max_deadline_ms:
        raise ConfigurationError(
            f"RAG_DEFAULT_DEADLINE_MS is {settings.default_deadline_ms}, above"
            f" RAG_MAX_DEADLINE_MS, {settings.max_deadline_ms}; lower one or raise the other"
        )
    for owner in ("generator", "reranker"):
        key = f"{owner}_api_key"
        if getattr(settings, key) and getattr(settings, f"{key}_file"):
            both = f"{_variable(key)} and {_variable(key)}_FILE"
            raise ConfigurationError(f"{both} are both set; set one")
    if settings.api_keys and settings.api_keys_file:
        raise ConfigurationError("RAG_API_KEYS and RAG_API_KEYS_FILE are both set; set one")
    needed = {
        "openai": ("generator_url", "generator_model"),
        "sagemaker": ("generator_endpoint",),
        "bedrock": ("generator_model",),
        "langchain": ("generator_chat_model",),
    }
    _require(settings, "generator", *needed.get(settings.generator, ()))
    if settings.reranker in ("onnx", "torch"):
        _require(settings, "reranker", "reranker_path")
    if settings.reranker == "remote":
        _require(settings, "reranker", "reranker_url")
        if settings.reranker_dialect != "tei":
            _require(settings, "reranker_dialect", "reranker_model")


def _require(settings: Settings, choice: str, *needed: str) -> None:
    """Raises ConfigurationError for a setting that the value of `choice` needs."""
    for name in needed:
        if not getattr(settings, name):
            raise ConfigurationError(
                f"{_variable(choice)} is {getattr(settings, choice)} and {_variable(name)} is not"
                " set; set it"
            )


def table() -> str:
    """Every setting as a Markdown table: variable, type, default, description."""
    lines = ["| Variable | Type | Default | Meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        cells = (f"`{_variable(name)}`", _type_name(field), _default(field), field.description)
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _type_name(field: FieldInfo) -> str:
    annotation: Any = field.annotation
    kinds = [
        kind for kind in getattr(annotation, "__args__", (annotation,)) if kind is not type(None)
    ]
    if all(isinstance(kind, str) for kind in kinds):
        return " or ".join(f"`{kind}`" for kind in kinds)
    names = {
        Path: "path",
        SecretStr: "secret",
        str: "text",
        int: "integer",
        float: "number",
        bool: "true or false",
    }
    return " or ".join(names[kind] for kind in kinds)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value is PydanticUndefined:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"

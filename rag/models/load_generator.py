"""The one place that chooses what writes answers."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast, get_args
from urllib.parse import urlsplit

from rag.errors import ConfigurationError
from rag.models.generator import Generator
from rag.models.question import Terms
from rag.models.resilient_generator import ResilientGenerator
from rag.models.wire.breaker import Breaker, Observe

if TYPE_CHECKING:
    from rag.models.embedder import Embedder
    from rag.models.sagemaker_dialects import Dialect

Kind = Literal["extractive", "openai", "sagemaker", "bedrock", "langchain"]


@dataclass(frozen=True, slots=True)
class GeneratorSpec:
    """Which generator, and how its endpoint is asked.

    'openai' takes `url` and `model`; 'sagemaker' the endpoint's name as `endpoint`, its `dialect`,
    and `model` and `component` where it wants them; 'bedrock' a `model`; both of them `region` and
    `url` where the environment does not say. 'langchain' takes `chat_model`, 'package.module:Class'
    of a chat model, made with `options`. For the others `options` are merged into each request's
    body. `streams` is for the AWS ones. The rest is about retries and the circuit breaker, see
    `ResilientGenerator` and `Breaker`.
    """

    kind: Kind
    url: str | None = None
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    dialect: str = "messages"
    component: str | None = None
    region: str | None = None
    streams: bool = True
    chat_model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 3
    first_token_s: float | None = None
    breaker_threshold: int = 5
    breaker_open_s: float = 15.0


def load_generator(
    spec: GeneratorSpec,
    *,
    terms: Terms | None = None,
    embedder: Embedder | None = None,
    observe_breaker: Observe | None = None,
) -> Generator:
    """The generator of `spec`; no endpoint is contacted.

    'extractive' reads with `terms`, the bundle's analyzer, and `embedder`, if there is one. All
    others are retried and have a breaker, of whose state `observe_breaker` hears. Raises
    ConfigurationError for what is missing in `spec`, or not installed.
    """
    if spec.kind not in get_args(Kind):
        raise ConfigurationError(
            f"the generator {spec.kind!r} is not one of {', '.join(get_args(Kind))}"
        )
    if spec.kind == "extractive":
        return _extractive(terms, embedder)
    generator = _MAKERS[spec.kind](spec)
    breaker = Breaker(
        _where(spec, generator),
        threshold=spec.breaker_threshold,
        open_for_s=spec.breaker_open_s,
        observe=observe_breaker,
    )
    return ResilientGenerator(
        generator, breaker, attempts=spec.attempts, first_token_s=spec.first_token_s
    )


def _where(spec: GeneratorSpec, generator: Generator) -> str:
    """The endpoint's name in metrics and messages."""
    if spec.kind == "openai" and spec.url:
        return urlsplit(spec.url).netloc.rpartition("@")[2]
    return spec.endpoint or generator.name


def read_options(text: str | None, setting: str) -> dict[str, Any]:
    """The JSON object in `text`; none for None. Raises ConfigurationError that names `setting`."""
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{setting} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{setting} is not a JSON object; use one such as {{}}")
    return value


def _extractive(terms: Terms | None, embedder: Embedder | None) -> Generator:
    from rag.models.extractive import ExtractiveGenerator

    if terms is None:
        raise ConfigurationError("the extractive generator needs a bundle's analyzer")
    if embedder is None:
        return ExtractiveGenerator(terms)
    return ExtractiveGenerator(terms, embedder.embed_passages, embedder.embed_queries)


def _openai(spec: GeneratorSpec) -> Generator:
    from rag.models.openai_generator import OpenAIGenerator

    return OpenAIGenerator(
        _given(spec, "url"), _given(spec, "model"), api_key=spec.api_key, extra=spec.options
    )


def _sagemaker(spec: GeneratorSpec) -> Generator:
    from rag.models.sagemaker_generator import SageMakerGenerator

    return SageMakerGenerator(
        _given(spec, "endpoint"),
        dialect=cast("Dialect", spec.dialect),
        model=spec.model,
        inference_component=spec.component,
        region=spec.region,
        endpoint_url=spec.url,
        streams=spec.streams,
        extra=spec.options,
    )


def _bedrock(spec: GeneratorSpec) -> Generator:
    from rag.models.bedrock_generator import BedrockGenerator

    return BedrockGenerator(
        _given(spec, "model"),
        region=spec.region,
        endpoint_url=spec.url,
        streams=spec.streams,
        extra=spec.options,
    )


def _langchain(spec: GeneratorSpec) -> Generator:
    """Any class with a LangChain chat model's interface, from what is installed beside us."""
    path = _given(spec, "chat_model")
    module, _, name = path.replace("class://", "").partition(":")
    try:
        from rag.models.langchain_generator import LangChainGenerator

        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"the chat model {path!r} cannot be imported: {error}; use 'package.module:Class' and"
            " install its package"
        ) from error
    try:
        model = made(**spec.options)
    except (TypeError, ValueError) as error:  # pydantic's errors are ValueErrors
        said = " ".join(str(error).split())[:200]
        raise ConfigurationError(
            f"the chat model {path!r} does not take these options: {said}"
        ) from None
    if not hasattr(model, "astream"):
        raise ConfigurationError(f"{path!r} is not a LangChain chat model")
    return LangChainGenerator(model)


_MAKERS: Mapping[str, Callable[[GeneratorSpec], Generator]] = {
    "openai": _openai,
    "sagemaker": _sagemaker,
    "bedrock": _bedrock,
    "langchain": _langchain,
}


def _given(spec: GeneratorSpec, name: str) -> str:
    value = getattr(spec, name)
    if not value:
        raise ConfigurationError(f"the {spec.kind} generator needs {name}")
    return str(value)

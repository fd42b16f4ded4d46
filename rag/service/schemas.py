"""Requests as the wire has them: parsed strictly, refused in one line that names the field."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from rag.errors import InvalidRequest
from rag.types import Message, Mode, Query

BOM = b"\xef\xbb\xbf"
"""The mark that some editors put before UTF-8; it is not part of the JSON."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for; milliseconds, bytes, characters and counts as named.

    `max_lines_bytes` is for JSON Lines bodies, where it is not `max_payload_bytes`.
    """

    default_deadline_ms: int = 50_000
    max_deadline_ms: int = 55_000
    max_payload_bytes: int = 25 * 2**20
    max_query_chars: int = 8_000
    max_top_k: int = 100
    max_generation_tokens: int = 4_096
    max_records: int | None = 20_000
    max_lines_bytes: int | None = None
    record_concurrency: int = 32
    deadline_per_record: bool = False


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Turn(_Strict):
    """One earlier turn of the conversation."""

    role: Literal["user", "assistant"]
    content: str


class FusionOptions(_Strict):
    """How the two legs are fused, instead of the bundle's own way."""

    method: Literal["feedback", "weighted", "theoretical", "zscore", "distribution", "rrf"] = Field(
        description="By what the passages say (the default), by scaled scores, or by ranks"
    )
    dense_weight: float = Field(
        0.5, ge=0, le=1, allow_inf_nan=False, description="Weight of the dense leg, 0 to 1"
    )
    k: float | None = Field(
        None, ge=0.001, le=1e6, allow_inf_nan=False, description="Constant of 'rrf' (60)"
    )


class GenerationOptions(_Strict):
    """How the answer is generated."""

    max_tokens: int = Field(512, ge=1, description="Longest answer, in the generator's tokens")
    temperature: float = Field(0.0, ge=0, le=2, allow_inf_nan=False, description="0 to 2")


class InvocationRequest(_Strict):
    """One question. Only `query` is required."""

    query: Annotated[str, StringConstraints(min_length=1)] = Field(
        description="The question, or what to search for", examples=["How do I reset the device?"]
    )
    mode: Literal["answer", "retrieve"] = Field(
        "answer", description="An answer with citations, or the passages alone"
    )
    top_k: int = Field(5, ge=1, description="How many passages")
    filter: dict[str, Any] | None = Field(
        None, description="Which passages may answer", examples=[{"lang": {"$eq": "ko"}}]
    )
    messages: tuple[Turn, ...] = Field(
        (), max_length=64, description="Earlier turns of the conversation, oldest first"
    )
    legs: Literal["hybrid", "dense", "sparse"] = Field("hybrid", description="Which legs search")
    fusion: FusionOptions | None = None
    query_expansion: Literal["none", "rewrite", "multi", "hyde", "decompose"] = Field(
        "none",
        description="What the generator makes of the query before the search: a stand-alone query"
        " of a follow-up, paraphrases, a hypothetical passage, or sub-questions",
    )
    rerank: bool = Field(False, description="Let the reranker order the best passages; needs one")
    min_score: float | None = Field(
        None, allow_inf_nan=False,
        description="Leave out passages with a score below this, before they are reranked",
    )  # fmt: skip
    template: str | None = Field(
        None, description="Prompt template, one of those that the service lets requests choose"
    )
    unsupported: Literal["flag", "drop"] | None = Field(
        None,
        description="Sentences that the passages do not bear out: told by `supported`, or left out"
        " of the answer; null: the service's setting",
    )
    stream: bool = Field(False, description="Send frames as they are made")
    generation: GenerationOptions = GenerationOptions()  # type: ignore[call-arg]
    deadline_ms: int | None = Field(
        None, ge=1, description="Time for everything, from the arrival of the request"
    )
    on_generator_failure: Literal["degrade", "error"] = Field(
        "degrade",
        description="If retrieval worked and the generator fails: 200 with the passages and"
        " `answer` null, or the generator's error",
    )
    request_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:\-]{1,128}$")] | None = (
        Field(None, description="What replies and logs call this request, where no header does")
    )
    api_key: SecretStr | None = Field(
        None, description="The caller's key, where headers do not get through"
    )

    def to_query(self) -> Query:
        """What the retriever takes; its text is NFC."""
        fusion = None if self.fusion is None else self.fusion.model_dump(exclude_unset=True)
        return Query(
            text=unicodedata.normalize("NFC", self.query),
            top_k=self.top_k,
            where=self.filter,
            legs=Mode(self.legs),
            fusion=fusion,
        )

    def history(self) -> list[Message]:
        return [
            Message(turn.role, unicodedata.normalize("NFC", turn.content)) for turn in self.messages
        ]


def parse_request(body: bytes, limits: Limits) -> InvocationRequest:
    """Reads one JSON object; raises InvalidRequest, one line, for anything else."""
    body = body.removeprefix(BOM)
    if not body.strip():
        raise InvalidRequest('body is empty; send a JSON object such as {"query": "…"}')
    try:
        request = InvocationRequest.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest(explain(error, InvocationRequest)) from None
    check_limits(request, limits)
    return request


def check_limits(request: InvocationRequest, limits: Limits) -> None:
    """Bounds that belong to this service, not to the protocol; raises InvalidRequest."""
    if not request.query.strip():
        raise InvalidRequest("query is empty; send the text to search for")
    _at_most("query", len(request.query), limits.max_query_chars, "characters")
    for place, turn in enumerate(request.messages):
        length = len(turn.content)
        _at_most(f"messages.{place}.content", length, limits.max_query_chars, "characters")
    _at_most("top_k", request.top_k, limits.max_top_k)
    _at_most("generation.max_tokens", request.generation.max_tokens, limits.max_generation_tokens)
    _at_most("deadline_ms", request.deadline_ms or 0, limits.max_deadline_ms)


def _at_most(name: str, value: int, most: int, unit: str = "") -> None:
    if value > most:
        raise InvalidRequest(f"{name} is {value} {unit}".rstrip() + f"; use at most {most}")


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing wrong and how many more there are, as one line."""
    details = error.errors(include_url=False, include_input=False)
    # A field that is not known is most often a required one misspelt: it explains more.
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return _describe(first, model) + more


def _describe(detail: ErrorDetails, model: type[BaseModel]) -> str:
    path = ".".join(str(part)[:80] for part in detail["loc"])
    message = detail["msg"]
    if detail["type"] == "extra_forbidden":
        known = list(_fields_at(model, detail["loc"][:-1]))
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
        return f"unknown field '{path}'; {hint}"
    if detail["type"] == "json_invalid":
        return f"body is not {message[0].lower()}{message[1:]}".replace("not invalid", "not valid")
    if not path:
        return 'body is not a JSON object; send one such as {"query": "…"}'
    if detail["type"] == "missing":
        return f"{path} is missing; it is required"
    return f"{path}: {message[0].lower()}{message[1:]}"


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> Iterator[str]:
    """Names of the fields of the object that `path` leads to."""
    for part in path:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        model = next(kind for kind in _models(annotation))
    yield from model.model_fields


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)

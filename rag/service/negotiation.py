"""Headers: media types in and out, request ids, and the platform's custom attributes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rag.errors import NotAcceptable, UnsupportedMediaType

JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"
JSON_LINES = ("application/jsonlines", NDJSON, "application/jsonl")
CUSTOM_ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"
TARGET_MODEL = b"x-amzn-sagemaker-target-model"
MAX_ATTRIBUTES_CHARS = 1024

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_ATTRIBUTE = re.compile(r"(?:^|[,;\s])request[_-]id=([^,;\s]+)", re.IGNORECASE)
_KEY = re.compile(r"(?:^|[,;\s])api[_-]key=([^,;\s]*)", re.IGNORECASE)
_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)


class Headers(NamedTuple):
    """The headers of one request that this service reads, '' where absent; `trace` is W3C's
    traceparent and tracestate.
    """

    content_type: str
    accept: str
    attributes: str
    request_id: str
    content_length: int | None
    authorization: str = ""
    api_key: str = ""
    trace: tuple[str, str] = ("", "")
    target_model: str = ""


def read_headers(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """From ASGI's pairs (names in lower case); an Accept sent in parts is one list."""
    found: dict[bytes, bytes] = {}
    for name, value in raw:
        found[name] = found[name] + b"," + value if name in found else value
    length = found.get(b"content-length", b"")
    return Headers(
        content_type=found.get(b"content-type", b"").decode("latin-1"),
        accept=found.get(b"accept", b"").decode("latin-1"),
        attributes=found.get(CUSTOM_ATTRIBUTES, b"").decode("latin-1"),
        request_id=found.get(b"x-request-id", b"").decode("latin-1"),
        content_length=int(length) if length.isdigit() else None,
        authorization=found.get(b"authorization", b"").decode("latin-1"),
        api_key=found.get(b"x-api-key", b"").decode("latin-1"),
        trace=(
            found.get(b"traceparent", b"").decode("latin-1"),
            found.get(b"tracestate", b"").decode("latin-1"),
        ),
        target_model=found.get(TARGET_MODEL, b"").decode("latin-1"),
    )


def request_id_of(headers: Headers) -> str:
    """The caller's id (`request_id=…` in the custom attributes, or X-Request-Id), or a new one.

    An id of other characters than letters, digits and `._:-` is not taken over: it goes into
    headers and logs.
    """
    return named_request_id(headers) or new_request_id()


def new_request_id() -> str:
    """32 hex digits, at random."""
    return os.urandom(16).hex()


def named_request_id(headers: Headers) -> str:
    """The id that the headers give, '' for none."""
    named = _ATTRIBUTE.search(headers.attributes)
    for candidate in (named.group(1) if named else "", headers.request_id):
        if _REQUEST_ID.fullmatch(candidate):
            return candidate
    return ""


def credential_of(headers: Headers) -> str:
    """The API key that the headers carry, '' for none: in the custom attributes, which are all
    that the platform lets through (`api_key=…`), as a bearer token, or in X-Api-Key.
    """
    named, bearer = _KEY.search(headers.attributes), _BEARER.fullmatch(headers.authorization)
    return (named and named[1]) or (bearer and bearer[1]) or headers.api_key


def sanitised(attributes: str) -> str:
    """The custom attributes as they may go back: printable ASCII, no longer than allowed, and
    without an API key.
    """
    if not attributes:
        return ""
    kept = _KEY.sub("", attributes)
    return "".join(c for c in kept if " " <= c <= "~").strip(" ,;")[:MAX_ATTRIBUTES_CHARS]


def is_json_lines(content_type: str) -> bool:
    """False for one JSON object (and for no type at all), True for JSON Lines.

    Parameters are allowed, but text is UTF-8. Raises UnsupportedMediaType for anything else.
    """
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip(' "') not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMediaType(f"charset is {value.strip()}; send UTF-8")
    if kind in ("", JSON):
        return False
    if kind in JSON_LINES:
        return True
    raise UnsupportedMediaType(
        f"Content-Type is {kind[:100]}; send {JSON} (one object) or {JSON_LINES[0]} (one a line)"
    )


def choose(accept: str, offers: Sequence[str]) -> str:
    """The offer that `accept` likes best: by quality, then by how exactly it is named, then in the
    order of `offers`. No Accept at all takes the first.

    Raises NotAcceptable when none is accepted. RFC 9110, section 12.5.1.
    """
    ranges = _ranges(accept)
    if not ranges:
        return offers[0]
    best, best_rank = "", (0.0, 0)
    for offer in offers:
        rank = _rank(offer, ranges)
        if rank[0] > 0 and rank > best_rank:
            best, best_rank = offer, rank
    if not best:
        raise NotAcceptable(
            f"Accept is {accept[:100]}; this reply can be sent as {' or '.join(offers)}"
        )
    return best


def _ranges(accept: str) -> dict[str, float]:
    """Media ranges with their qualities; one that cannot be read accepts nothing."""
    ranges: dict[str, float] = {}
    for entry in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        if kind:
            ranges[kind] = _quality(parameters)
    return ranges


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return 0.0
            return quality if 0.0 <= quality <= 1.0 else 0.0
    return 1.0


def _rank(offer: str, ranges: dict[str, float]) -> tuple[float, int]:
    """(quality, exactness) by the most exact range that covers `offer`; (0, 0) for none."""
    group = offer.partition("/")[0]
    for exactness, kind in ((3, offer), (2, f"{group}/*"), (1, "*/*")):
        if kind in ranges:
            return ranges[kind], exactness
    return 0.0, 0

"""Requests as no client should send them: bodies that were valid once."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

VALID: tuple[dict[str, Any], ...] = (
    {"query": "How do I reset the lamp?"},
    {"query": "연차 휴가", "mode": "retrieve", "top_k": 3, "legs": "dense"},
    {"query": "lamp", "mode": "retrieve", "filter": {"lang": {"$in": ["en", "ko"]}}},
    {"query": "lamp", "filter": {"$or": [{"page": {"$gte": 1}}, {"$not": {"title": "x"}}]}},
    {"query": "lamp", "fusion": {"method": "weighted", "dense_weight": 0.25}, "min_score": 0.1},
    {"query": "and the kettle?", "messages": [{"role": "user", "content": "lamp"}]},
    {"query": "lamp", "stream": True, "generation": {"max_tokens": 16, "temperature": 0.5}},
    {"query": "lamp", "deadline_ms": 5000, "on_generator_failure": "error", "rerank": False},
)
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, -1e308, 2**63, 10**400, "", " ", "\x00", "\ud800", "𝕏" * 50,
    "a" * 9000,
    [], {}, [[]], {"$eq": None}, {"$gt": {"$gt": 1}}, {"": ""}, [None] * 100, float("nan"),
    float("inf"), "null", "\u202e", "${jndi:x}", "{{7*7}}", "../../etc/passwd", {"$where": "1"},
)  # fmt: skip
KINDS = (
    "application/json", "application/json; charset=utf-8", "application/jsonlines", "",
    "text/plain",
    "application/x-ndjson; charset=latin-1", "application/json; charset=", "*/*", "a" * 300,
)  # fmt: skip
ACCEPTS = (
    "",
    "*/*",
    "application/json",
    "text/event-stream",
    "image/png",
    ";;;q=2",
    "q=",
    "a/b;q=x",
)


def mutations(count: int, seed: int) -> Iterator[tuple[bytes, dict[str, str]]]:
    """`count` pairs of a body and its headers; equal seeds give equal pairs."""
    chance = random.Random(seed)
    for _ in range(count):
        value: Any = json.loads(json.dumps(chance.choice(VALID)))
        for _ in range(chance.choice((0, 1, 1, 2, 4))):
            value = _mutated(value, chance)
        body = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode(
            "utf-8", "surrogatepass"
        )
        if chance.random() < 0.3:
            body = _broken(body, chance)
        headers = {"content-type": KINDS[0] if chance.random() < 0.8 else chance.choice(KINDS)}
        if chance.random() < 0.2:
            headers["accept"] = chance.choice(ACCEPTS)
        if chance.random() < 0.1:
            attributes = "".join(chr(chance.randrange(32, 127)) for _ in range(40))
            headers["x-amzn-sagemaker-custom-attributes"] = attributes.strip()
        yield body, headers


def _mutated(value: Any, chance: random.Random) -> Any:
    """`value` with one thing changed, somewhere inside."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        what = chance.randrange(5)
        if what == 0:
            value[key] = deepcopy(chance.choice(ODD))
        elif what == 1:
            del value[key]
        elif what == 2:
            value[chance.choice(("$and", "nonsense", key + "x", "", "top_k"))] = deepcopy(
                value[key]
            )
        elif what == 3:
            value[key] = deepcopy([value[key]] * chance.choice((1, 2, 70)))
        else:
            value[key] = _mutated(value[key], chance)
        return value
    if isinstance(value, list) and value:
        place = chance.randrange(len(value))
        value[place] = _mutated(value[place], chance)
        return value
    return deepcopy(chance.choice(ODD))


def _broken(body: bytes, chance: random.Random) -> bytes:
    """`body` with its bytes damaged."""
    what = chance.randrange(6)
    place = chance.randrange(len(body) + 1)
    if what == 0:
        return body[:place]
    if what == 1:
        return body[:place] + bytes([chance.randrange(256)]) + body[place + 1 :]
    if what == 2:
        return body + chance.choice((b"\n", b"\n{}", b"x", b"\x00", body))
    if what == 3:
        return b"\xef\xbb\xbf" + body
    if what == 4:
        return b"[" * chance.choice((1, 1000, 100_000)) + body
    return body[:place] + b"\n" + body[place:]

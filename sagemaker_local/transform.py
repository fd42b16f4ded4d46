"""Batch transform: a file is cut into payloads, each is answered, the results are joined."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sagemaker_local.errors import InvalidInput, ModelError
from sagemaker_local.hosting import Endpoint

MB = 1 << 20
Strategy = Literal["MULTI_RECORD", "SINGLE_RECORD"]


@dataclass(frozen=True)
class Plan:
    """How a job sends its records; `max_payload_mb` 0 is one chunked request for all of them."""

    strategy: Strategy = "MULTI_RECORD"
    max_payload_mb: int = 6
    concurrency: int = 1

    @classmethod
    def ask(
        cls,
        endpoint: Endpoint,
        *,
        strategy: Strategy | None = None,
        max_payload_mb: int | None = None,
        concurrency: int | None = None,
    ) -> Plan:
        """What the user has set, else /execution-parameters, else the platform's defaults."""
        reply = endpoint.send("GET", "/execution-parameters")
        stated = reply.json() if reply.status == 200 else {}
        plan = cls(
            strategy or stated.get("BatchStrategy", cls.strategy),
            stated.get("MaxPayloadInMB", cls.max_payload_mb)
            if max_payload_mb is None
            else max_payload_mb,
            concurrency or stated.get("MaxConcurrentTransforms", cls.concurrency),
        )
        if plan.concurrency * plan.max_payload_mb > 100:
            raise InvalidInput(
                f"{plan.concurrency} transforms of {plan.max_payload_mb} MB are over the"
                " platform's 100 MB"
            )
        return plan


def payloads(data: bytes, plan: Plan) -> Iterator[bytes]:
    """The lines of `data` in payloads, as SplitType=Line makes them; lines keep their ends."""
    lines = data.splitlines(keepends=True)
    if plan.max_payload_mb == 0:
        yield data
        return
    if plan.strategy == "SINGLE_RECORD":
        yield from lines
        return
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if len(line) > plan.max_payload_mb * MB:
            raise InvalidInput(f"a record of {len(line)} bytes is over {plan.max_payload_mb} MB")
        if batch and size + len(line) > plan.max_payload_mb * MB:
            yield b"".join(batch)
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield b"".join(batch)


def transform(
    endpoint: Endpoint, source: Path, target: Path, plan: Plan, *, content_type: str
) -> int:
    """Answers the records of `source` into `target`, in order (AssembleWith=Line); how many.

    Raises ModelError for a payload that is refused, and InvalidInput where results cannot be
    joined to records because their number differs.
    """
    data = source.read_bytes()
    parts = list(payloads(data, plan))
    with ThreadPoolExecutor(plan.concurrency) as pool:
        results = list(pool.map(lambda part: _send(endpoint, part, plan, content_type), parts))
    lines = [line for result in results for line in result.splitlines()]
    if len(lines) != len(data.splitlines()):
        raise InvalidInput(
            f"{len(data.splitlines())} records gave {len(lines)} results; they cannot be joined"
        )
    target.write_bytes(b"".join(line + b"\n" for line in lines))
    return len(lines)


def _send(endpoint: Endpoint, part: bytes, plan: Plan, content_type: str) -> bytes:
    # Without a limit the platform sends a chunked body, which has no Content-Length.
    body = (
        part if plan.max_payload_mb else (part[i : i + 65536] for i in range(0, len(part), 65536))
    )
    headers = {"content-type": content_type, "accept": content_type}
    reply = endpoint.send("POST", "/invocations", body, headers, timeout_s=600)
    if reply.status != 200:
        raise ModelError(reply.status, reply.body)
    return reply.body

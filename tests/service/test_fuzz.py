"""Requests that are wrong in every way there is: never a 5xx, never a hang."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from mutations import mutations
from schemathesis.checks import CHECKS, load_all_checks

COUNT = 300
"""tests/bench/fuzz.py sends 20,000."""


def test_mutated_bodies_are_answered_and_never_by_a_5xx(server: Any) -> None:
    statuses: dict[int, int] = {}
    for body, headers in mutations(COUNT, seed=1):
        response = server.client.post("/invocations", content=body, headers=headers, timeout=30)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        assert response.status_code < 500, (body[:300], headers, response.text)
        if response.status_code != 200:
            assert set(response.json()["error"]) == {"type", "message", "request_id"}
    assert statuses[200] > COUNT / 20
    assert statuses[400] > COUNT / 20
    assert server.ask().status_code == 200


def test_the_openapi_document_holds_for_what_it_generates(server: Any) -> None:
    """Schemathesis over every operation: valid and invalid requests, and what comes back."""
    load_all_checks()
    names = ("not_a_server_error", "status_code_conformance", "content_type_conformance",
             "response_schema_conformance")  # fmt: skip
    checks = [CHECKS.get_one(name) for name in names]
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    for result in schema.get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=20, deadline=None, database=None, derandomize=True,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def check(case: Any) -> None:
            case.call_and_validate(checks=checks, timeout=30)

        check()

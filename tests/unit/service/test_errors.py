"""The table of statuses is complete, and tells clients nothing it should not."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from rag import errors
from rag.service.errors import STATUS, one_line, problem_of, status_of, type_name

ALLOWED = {400, 401, 403, 404, 406, 409, 413, 415, 429, 500, 502, 503, 504, 507}


def request_errors(kind: type[errors.RequestError]) -> Iterator[type[errors.RequestError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from request_errors(child)


KINDS = sorted(set(request_errors(errors.RequestError)), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", KINDS)
def test_every_request_error_is_in_the_table_by_name(kind: type[errors.RequestError]) -> None:
    assert kind in STATUS
    assert STATUS[kind] in ALLOWED


def test_the_table_names_nothing_else() -> None:
    assert set(STATUS) == set(KINDS)


def test_a_class_of_its_own_takes_its_parents_status() -> None:
    class Special(errors.InvalidFilter):
        pass

    try:
        assert status_of(Special) == 400
    finally:
        del Special


def test_types_are_snake_case_and_distinct() -> None:
    assert type_name(errors.GeneratorProtocolError) == "generator_protocol_error"
    assert len({type_name(kind) for kind in KINDS}) == len(KINDS)


def test_one_shape_and_one_line() -> None:
    problem = problem_of(errors.InvalidRequest("top_k is\n  0; 한국어"), "r-1")
    assert (problem.status, problem.headers) == (400, ())
    assert json.loads(problem.to_json("r-1")) == {
        "error": {"type": "invalid_request", "message": "top_k is 0; 한국어", "request_id": "r-1"}
    }
    assert len(one_line("x" * 10_000)) == 500


@pytest.mark.parametrize(("wait_s", "said"), [(0.2, b"1"), (1.0, b"1"), (3.2, b"4")])
def test_overloaded_says_when_to_come_back(wait_s: float, said: bytes) -> None:
    problem = problem_of(errors.Overloaded("full", retry_after_s=wait_s), "r")
    assert (problem.status, problem.headers) == (429, ((b"retry-after", said),))


@pytest.mark.parametrize(
    "error", [KeyError("/secret"), errors.BundleCorrupt("/secret/file"), OSError("/secret")]
)
def test_what_was_not_foreseen_is_internal_and_goes_to_the_log(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    problem = problem_of(error, "r-2")
    assert (problem.status, problem.type) == (500, "internal")
    assert "secret" not in problem.message
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.request_id == "r-2"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_a_clients_own_mistake_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    problem_of(errors.InvalidRequest("no"), "r-3")
    problem_of(errors.NotReady("loading"), "r-3")
    assert caplog.records == []

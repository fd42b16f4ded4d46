"""Headers: what is taken, what is refused, and what may go back."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.errors import NotAcceptable, UnsupportedMediaType
from rag.service import negotiation
from rag.service.negotiation import EVENTS, JSON, NDJSON, choose, is_json_lines, read_headers


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("", False), ("application/json", False), ("application/json;charset=utf-8", False),
        ("APPLICATION/JSON ; foo=bar", False), ("application/jsonlines", True),
        ("application/x-ndjson; charset=UTF-8", True), ("application/jsonl", True),
    ],
)  # fmt: skip
def test_known_types(kind: str, lines: bool) -> None:
    assert is_json_lines(kind) is lines


@pytest.mark.parametrize("kind", ["text/json", "application/jsonx", "application/json;charset=x"])
def test_unknown_types(kind: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        is_json_lines(kind)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", NDJSON),
        ("*/*", NDJSON),
        (EVENTS, EVENTS),
        (f"*/*, {EVENTS}", EVENTS),
        (f"{EVENTS};q=0.4, {NDJSON};q=0.5", NDJSON),
        (f"{EVENTS};q=0.4, */*;q=0.5", NDJSON),
        ("text/*", EVENTS),
        (f"{NDJSON};q=0, */*;q=0.1", EVENTS),
        (f"{NDJSON};q=x, {EVENTS};q=0.1", EVENTS),
        (f" {EVENTS} ; Q=1.0 ", EVENTS),
    ],
)
def test_choose_by_quality_then_exactness_then_order(accept: str, chosen: str) -> None:
    assert choose(accept, (NDJSON, EVENTS)) == chosen


@pytest.mark.parametrize("accept", ["text/html", f"{JSON};q=0", "*/*;q=0", f"{JSON};q=7"])
def test_nothing_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="application/json"):
        choose(accept, (JSON,))


@given(st.text(max_size=60))
def test_no_accept_header_breaks_it(accept: str) -> None:
    with contextlib.suppress(NotAcceptable):
        assert choose(accept, (JSON, EVENTS)) in (JSON, EVENTS)


def test_an_accept_in_parts_is_one_list() -> None:
    headers = read_headers([(b"accept", b"text/html"), (b"accept", b"application/json")])
    assert choose(headers.accept, (JSON,)) == JSON


@pytest.mark.parametrize(
    ("attributes", "header", "taken"),
    [
        ("request_id=a-1", "b", "a-1"),
        ("tenant=x;request_id=a.1:2_3", "", "a.1:2_3"),
        ("x_request_id=a", "b", "b"),
        ("", "b", "b"),
        ("request_id=<b>", "ok", "ok"),
    ],
)
def test_the_request_id(attributes: str, header: str, taken: str) -> None:
    raw = [(negotiation.CUSTOM_ATTRIBUTES, attributes.encode()), (b"x-request-id", header.encode())]
    assert negotiation.request_id_of(read_headers(raw)) == taken


@given(st.binary(max_size=3000))
def test_what_goes_back_is_printable_and_short(raw: bytes) -> None:
    headers = read_headers([(negotiation.CUSTOM_ATTRIBUTES, raw)])
    back = negotiation.sanitised(headers.attributes)
    assert len(back) <= 1024
    assert all(" " <= character <= "~" for character in back)
    assert negotiation.request_id_of(headers).isascii()

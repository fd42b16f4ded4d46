"""Key files: what they may hold, and how they are read again."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from rag.errors import ConfigurationError, Forbidden, InvalidFilter, Unauthorized
from rag.service import access
from rag.service.access import Access

PLAIN = "a-key-of-team-a-0001"


def keys(*entries: dict[str, Any]) -> str:
    return json.dumps({"keys": list(entries)})


def test_a_key_is_known_plain_or_by_its_digest() -> None:
    digest = hashlib.sha256(b"another-key-00000001").hexdigest()
    made = Access(
        keys({"name": "a", "key": PLAIN}, {"name": "b", "sha256": digest, "manage": True})
    )
    assert made.required
    assert made.claims(PLAIN).name == "a"
    assert made.manager("another-key-00000001").name == "b"
    for wrong in ("", digest, PLAIN + "x", PLAIN[:-1], "\udcff"):
        with pytest.raises(Unauthorized):
            made.claims(wrong)
    with pytest.raises(Forbidden, match="'a' may not manage"):
        made.manager(PLAIN)


def test_a_new_key_opens_what_its_entry_says() -> None:
    secret, entry = access.new_key("a", {"tenant": "a"}, ["x"], manage=False)
    assert secret not in json.dumps(entry)
    claims = Access(keys(entry)).claims(secret)
    assert (claims.where, claims.bundles) == ({"tenant": "a"}, frozenset({"x"}))
    assert secret != access.new_key("a", None, None, manage=True)[0]
    with pytest.raises(ConfigurationError, match="name"):
        access.new_key("a b", None, None, manage=False)


def test_without_keys_everybody_may_ask() -> None:
    assert not Access().required
    assert Access().manager("").where is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON"),
        (keys(), "keys"),
        (keys({"name": "a"}), "'a': give 'key' or 'sha256'"),
        (keys({"name": "a", "key": PLAIN, "sha256": "0" * 64}), "one of the two"),
        (keys({"name": "a", "key": "short-secret"}), "shorter than 16"),
        (keys({"name": "a", "sha256": "ABC"}), "sha256"),
        (keys({"name": "a b", "key": PLAIN}), "name"),
        (keys({"name": "a", "key": PLAIN, "tenant": "x"}), "tenant"),
        (keys({"name": "a", "key": PLAIN, "filter": {"$where": 1}}), r"filter.\$where"),
        (keys({"name": "a", "key": PLAIN}, {"name": "b", "key": PLAIN}), "'b': .* twice"),
    ],
)
def test_a_file_that_is_not_valid_is_one_line_without_the_key(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        Access(text)
    assert len(str(caught.value).splitlines()) == 1
    assert "secret" not in str(caught.value)
    assert PLAIN not in str(caught.value)


def test_a_claim_narrows_whatever_the_request_says() -> None:
    claims = Access(keys({"name": "a", "key": PLAIN, "filter": {"tenant": "a"}})).claims(PLAIN)
    assert claims.narrowed(None) == {"tenant": "a"}
    wide = {"$or": [{"tenant": "b"}, {"tenant": "a"}]}
    assert claims.narrowed(wide) == {"$and": [{"tenant": "a"}, wide]}
    with pytest.raises(InvalidFilter, match=r"^filter\.\$where"):
        claims.narrowed({"$where": 1})


def test_a_changed_file_is_read_again_and_a_broken_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access, "RELOAD_S", 0.0)
    file = tmp_path / "keys.json"
    file.write_text(keys({"name": "a", "key": PLAIN}))
    made = Access(file=file)
    assert made.claims(PLAIN).name == "a"
    file.write_text(keys({"name": "other", "key": "another-key-00000001"}))
    assert made.claims("another-key-00000001").name == "other"
    with pytest.raises(Unauthorized):
        made.claims(PLAIN)
    with caplog.at_level(logging.ERROR):
        file.write_text("{")
        assert made.claims("another-key-00000001").name == "other"
        file.unlink()
        assert made.claims("another-key-00000001").name == "other"
    assert len(caplog.records) == 2


def test_a_file_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="RAG_API_KEYS_FILE cannot be read"):
        Access(file=tmp_path / "none")

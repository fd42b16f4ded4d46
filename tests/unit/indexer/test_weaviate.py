"""What is Weaviate's own: its schema, its batches, its faults, its key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from weaviate_server import KEY, FakeWeaviate

from indexer.external.opening import table_opener
from indexer.external.retries import Retries
from indexer.external.table import Row
from indexer.external.weaviate import WeaviateTable
from rag.errors import ConfigurationError, DatabaseError, DatabaseUnavailable

ROW = Row(
    "0123456789abcdef" * 2, "d.md", "Title", "Text.", "s3://b/d.md", 3, "en", "md",
    {"team": "a", "content type": ["x", 2]}, np.array([0.6, 0.8], dtype=np.float32),
)  # fmt: skip
UUID = "01234567-89ab-cdef-0123-456789abcdef"


def connect(fake: FakeWeaviate, **retries: Any) -> WeaviateTable:
    quick = Retries(**{"wait_initial_s": 0.001, **retries})
    table = table_opener(f"{fake.url}/Passages", {"WEAVIATE_API_KEY": KEY}, retries=quick)(2)
    assert isinstance(table, WeaviateTable)
    return table


@pytest.fixture
def table(weaviate: FakeWeaviate) -> Iterator[WeaviateTable]:
    table = connect(weaviate)
    yield table
    table.close()


def test_an_object_is_what_users_of_weaviate_filter_on(
    weaviate: FakeWeaviate, table: WeaviateTable
) -> None:
    table.write([ROW])
    made = weaviate.classes["Passages"]
    assert made["vectorizer"] == "none"
    assert made["vectorIndexConfig"] == {"distance": "cosine"}
    kinds = {p["name"]: p["dataType"] for p in made["properties"]}
    assert kinds == {
        "chunk_id": ["text"], "doc_id": ["text"], "title": ["text"], "text": ["text"],
        "uri": ["text"], "page": ["int"], "lang": ["text"], "format": ["text"],
        "metadata": ["text"], "meta_text_team": ["text"],
        "meta_texts_content_type_62ecb6ff": ["text[]"],
        "meta_ints_content_type_62ecb6ff": ["int[]"],
    }  # fmt: skip
    held = weaviate.objects["Passages"][UUID]
    assert held["properties"] == {
        "chunk_id": ROW.chunk_id, "doc_id": "d.md", "title": "Title", "text": "Text.",
        "uri": "s3://b/d.md", "page": 3, "lang": "en", "format": "md",
        "metadata": '{"content type": ["x", 2], "team": "a"}', "meta_text_team": "a",
        "meta_texts_content_type_62ecb6ff": ["x"], "meta_ints_content_type_62ecb6ff": [2],
    }  # fmt: skip
    np.testing.assert_array_equal(np.float32(held["vector"]), ROW.vector)


def test_an_altered_property_to_filter_on_is_altered_metadata(
    weaviate: FakeWeaviate, table: WeaviateTable
) -> None:
    table.write([ROW])
    weaviate.objects["Passages"][UUID]["properties"]["meta_text_team"] = "b"
    assert table.rows([ROW.chunk_id])[ROW.chunk_id].metadata["meta_text_team"] == "b"
    weaviate.objects["Passages"][UUID]["properties"] = {}
    assert table.rows([ROW.chunk_id])[ROW.chunk_id].text == ""


def test_side_by_side_rows_take_one_request(weaviate: FakeWeaviate, table: WeaviateTable) -> None:
    ids = [f"{n:032x}" for n in range(50)]
    table.write([Row(i, *[getattr(ROW, n) for n in Row.__slots__[1:]]) for i in ids])
    weaviate.asked.clear()
    assert len(table.rows(ids[10:40])) == 30
    assert weaviate.asked == [("GET", "/v1/objects")]


UNFIT: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "other properties": (lambda c: c["properties"].pop(0), "no property 'chunk_id'"),
    "another type": (
        lambda c: next(p for p in c["properties"] if p["name"] == "page").update(dataType=["text"]),
        "no property 'page' of type int",
    ),
    "a vectorizer": (lambda c: c.update(vectorizer="text2vec-openai"), "vectors of its own"),
    "named vectors": (lambda c: c.update(vectorConfig={"default": {}}), "named vectors"),
    "tenants": (lambda c: c.update(multiTenancyConfig={"enabled": True}), "tenants"),
    "another distance": (
        lambda c: c.update(vectorIndexConfig={"distance": "l2-squared"}), "l2-squared"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", UNFIT)
def test_a_collection_of_something_else_is_refused(
    what: str, weaviate: FakeWeaviate, table: WeaviateTable
) -> None:
    change, said = UNFIT[what]
    table.write([ROW])
    change(weaviate.classes["Passages"])
    with pytest.raises(DatabaseError, match=f"{said}.*name another collection"):
        connect(weaviate)


def test_a_collection_whose_making_was_answered_too_late_is_taken(
    weaviate: FakeWeaviate, table: WeaviateTable
) -> None:
    others = connect(weaviate)
    others.write([ROW])
    table.write([ROW])
    others.close()
    assert list(table.ids()) == [ROW.chunk_id]
    weaviate.classes.clear()
    late = connect(weaviate)
    weaviate.classes["Passages"] = {"class": "Passages", "properties": []}
    with pytest.raises(DatabaseError, match="cannot be made or extended: class name Passages alre"):
        late.write([ROW])
    late.close()


@pytest.mark.parametrize("fault", ["reset", 429, 500, 503])
def test_passing_faults_are_tried_again_and_then_told(
    fault: int | str, weaviate: FakeWeaviate, table: WeaviateTable
) -> None:
    weaviate.fault = lambda method, path: fault
    weaviate.asked.clear()
    with pytest.raises(DatabaseUnavailable) as failed:
        table.write([ROW])
    assert len(weaviate.asked) == Retries().attempts
    assert KEY not in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (400, "refused a request (400: told to fail for Bearer ***)"),
        (401, "takes no such key (401: told to fail for Bearer ***); set WEAVIATE_API_KEY"),
        (403, "does not allow this (403"),
        (301, "answered 301; name its final address"),
        ("html", "something that is not JSON; check the URL"),
    ],
)
def test_lasting_faults_are_told_at_once_in_one_line_without_the_key(
    fault: int | str, said: str, weaviate: FakeWeaviate
) -> None:
    weaviate.fault = lambda method, path: fault
    with pytest.raises(DatabaseError) as failed:
        connect(weaviate, wait_initial_s=60)
    assert said in str(failed.value)
    assert KEY not in str(failed.value)
    assert len(weaviate.asked) == 1


def test_a_key_that_no_header_can_carry_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="WEAVIATE_API_KEY"):
        table_opener("weaviate+http://host/Passages", {"WEAVIATE_API_KEY": "열쇠"})

"""A Weaviate collection as a table, over its REST API.

Objects come in ascending order of UUID, of all shards, when they are listed by cursor (`after` and
`limit`); `after` need not be an object that is there. A batch puts its objects in the place of
those with the same UUID, and answers 200 whatever became of them, so each one's own result is read.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2

from indexer.external.retries import Retries
from indexer.external.table import Opener, Row
from indexer.external.weaviate_client import WeaviateClient, messages_of
from indexer.external.weaviate_objects import (
    BUILT_IN,
    chunk_id_of,
    object_id,
    object_of,
    property_of,
    row_of,
)
from rag.errors import ConfigurationError, DatabaseError

PAGE = 500
"""Objects in one page of a listing; the API sends their texts even where only ids are wanted."""
_COLLECTION = re.compile(r"[A-Z][_0-9A-Za-z]{0,230}")


def weaviate_opener(url: str, api_key: str | None, retries: Retries) -> Opener:
    """Opens weaviate+http(s)://host[:port]/Collection. Raises ConfigurationError for another."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigurationError("--database is no URL: weaviate+https://host/Collection") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError("--database holds a key; give it as WEAVIATE_API_KEY instead")
    collection = parts.path.strip("/")
    if not parts.hostname or not _COLLECTION.fullmatch(collection) or parts.query:
        raise ConfigurationError(
            "--database must be weaviate+https://host[:port]/Collection, the collection's name"
            " beginning with a capital letter"
        )
    scheme = parts.scheme.removeprefix("weaviate+")
    server = httpx2.URL(scheme=scheme, host=parts.hostname, port=port)
    client = WeaviateClient(server, api_key, retries)
    return lambda dimension: WeaviateTable(client, collection, dimension)


class WeaviateTable:
    """The `Table` of one collection, for vectors of `dimension`; owns `client`.

    Raises DatabaseError for a collection that is not one of these: other properties, a vectorizer,
    named vectors, tenants, a distance that is not the cosine, vectors of another dimension.
    """

    def __init__(self, client: WeaviateClient, collection: str, dimension: int) -> None:
        self.name = f"{client.where}/{collection}"
        self._client = client
        self._collection = collection
        self._properties: set[str] | None = None
        """None while there is no collection."""
        self._learn(dimension)

    def close(self) -> None:
        self._client.close()

    def ids(self) -> Iterator[str]:
        if self._properties is None:
            return
        last: str | None = None
        while page := self._page(last, PAGE, vectors=False):
            last = page[-1]["id"]
            yield from [chunk_id_of(found["id"]) for found in page]

    def rows(self, ids: Sequence[str]) -> Mapping[str, Row]:
        """One page serves those that lie side by side; the others are asked for one by one."""
        if self._properties is None or not ids:
            return {}
        page = self._page(_before(ids[0]), len(ids), vectors=True)
        wanted = set(ids)
        found = {key: o for o in page if (key := chunk_id_of(o["id"])) in wanted}
        reached = chunk_id_of(page[-1]["id"]) if len(page) == len(ids) else ids[-1]
        for chunk_id in ids:
            if chunk_id > reached:
                status, value = self._client.ask(
                    "GET", self._path(chunk_id), params={"include": "vector"}, also={404}
                )
                if status != 404:
                    found[chunk_id] = value
        return {chunk_id: row_of(value) for chunk_id, value in found.items()}

    def write(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        objects = [object_of(row, self._collection) for row in rows]
        self._define({name for o in objects for name in o["properties"]})
        _, results = self._client.ask("POST", "batch/objects", body={"objects": objects})
        if not isinstance(results, list) or len(results) != len(objects):
            raise DatabaseError(f"{self.name}: a batch was not answered object by object")
        refused = [o for o in results if _problem(o)]
        if refused:
            said = self._client.one_line(_problem(refused[0]))
            raise DatabaseError(
                f"{self.name} refused {len(refused)} of {len(objects)} rows, as"
                f" {chunk_id_of(refused[0]['id'])}: {said}"
            )

    def delete(self, ids: Sequence[str]) -> None:
        if self._properties is None:
            return
        for chunk_id in ids:
            self._client.ask("DELETE", self._path(chunk_id), also={404})

    def _page(self, after: str | None, limit: int, *, vectors: bool) -> list[dict[str, Any]]:
        """The objects that follow the UUID `after` (None: from the first on)."""
        params = {"class": self._collection, "limit": str(limit)}
        if after is not None:
            params["after"] = after
        if vectors:
            params["include"] = "vector"
        _, value = self._client.ask("GET", "objects", params=params)
        try:
            page: list[dict[str, Any]] = value["objects"] or []
            order = [chunk_id_of(found["id"]) for found in page]
        except (KeyError, TypeError, ValueError) as error:
            raise DatabaseError(f"{self.name}: a listing is not one of Weaviate's") from error
        if order != sorted(order) or (after and order and order[0] <= chunk_id_of(after)):
            raise DatabaseError(f"{self.name}: objects are not listed by ascending id")
        return page

    def _path(self, chunk_id: str) -> str:
        return f"objects/{self._collection}/{object_id(chunk_id)}"

    def _learn(self, dimension: int) -> None:
        status, found = self._client.ask("GET", f"schema/{self._collection}", also={404})
        if status == 404:
            return
        types = {p["name"]: p.get("dataType") for p in found.get("properties") or []}
        problem = _unfit(found, types)
        if problem is None:
            for first in self._page(None, 1, vectors=True):
                held = len(first.get("vector") or [])
                if held not in (0, dimension):
                    problem = f"has vectors of {held} dimensions, the bundle's have {dimension}"
        if problem is not None:
            raise DatabaseError(
                f"{self.name} {problem}; name another collection, which is then made, or remove"
                " this one"
            )
        self._properties = set(types)

    def _define(self, names: set[str]) -> None:
        """Makes the collection if there is none, and the properties that it lacks.

        What another attempt, or another program, has made meanwhile is refused with 422; whether
        it is what was wanted is seen by what is there then.
        """
        if self._properties is None:
            wanted = [*BUILT_IN, *sorted(names - BUILT_IN.keys())]
            definition = {
                "class": self._collection,
                "description": "Passages of a bundle; `rag-indexer fsck --database` keeps them.",
                "vectorizer": "none",
                "vectorIndexType": "hnsw",
                "vectorIndexConfig": {"distance": "cosine"},
                "properties": [property_of(name) for name in wanted],
            }
            self._make("schema", definition)
            self._properties = set(wanted)
        for name in sorted(names - self._properties):
            self._make(f"schema/{self._collection}/properties", property_of(name))
            self._properties.add(name)

    def _make(self, path: str, definition: Mapping[str, Any]) -> None:
        status, said = self._client.ask("POST", path, body=definition, also={422})
        if status != 422:
            return
        _, found = self._client.ask("GET", f"schema/{self._collection}", also={404})
        types = {p["name"]: p.get("dataType") for p in (found or {}).get("properties") or []}
        wanted = definition.get("properties", [definition])
        if any(types.get(p["name"]) != p["dataType"] for p in wanted):
            said = self._client.one_line(messages_of(said) or said)
            raise DatabaseError(f"{self.name} cannot be made or extended: {said}")


def _unfit(found: Mapping[str, Any], types: Mapping[str, Any]) -> str | None:
    """Why a collection of this schema is none to hold passages, or None."""
    for name, definition in BUILT_IN.items():
        if types.get(name) != definition["dataType"]:
            return f"has no property '{name}' of type {definition['dataType'][0]}"
    if (found.get("multiTenancyConfig") or {}).get("enabled"):
        return "has tenants"
    if found.get("vectorConfig"):
        return "has named vectors"
    if found.get("vectorizer", "none") != "none":
        return "makes vectors of its own"
    distance = (found.get("vectorIndexConfig") or {}).get("distance", "cosine")
    return None if distance == "cosine" else f"measures by {distance}, not by cosine"


def _problem(result: Mapping[str, Any]) -> str:
    """Why one object of a batch was not written; '' if it was."""
    outcome = result.get("result") or {}
    said = messages_of(outcome.get("errors"))
    return said or ("no reason given" if outcome.get("status") == "FAILED" else "")


def _before(chunk_id: str) -> str | None:
    """The UUID just before, for a cursor that begins at `chunk_id`."""
    number = int(chunk_id, 16)
    return str(uuid.UUID(int=number - 1)) if number else None

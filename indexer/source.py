"""Where documents come from: every object below one URI, with its sidecar's metadata."""

from __future__ import annotations

import fnmatch
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag.errors import ConfigurationError, UnreadableDocument
from rag.storage import Store, is_remote, join, open_store
from rag.types import Metadata, Scalar

SIDECAR = ".metadata.json"
"""`NAME.metadata.json` beside `NAME` holds its metadata, as Bedrock Knowledge Bases read it:
`{"metadataAttributes": {"year": 2024, …}}`."""


@dataclass(frozen=True, slots=True)
class Item:
    """One document that has not been read yet. `key` is its name in the store, `doc_id` the same
    in NFC, `uri` where readers will find it; `sidecar` is the key of its metadata, or None.
    """

    key: str
    doc_id: str
    uri: str
    size: int
    sidecar: str | None


class Source:
    """The documents below `uri`, a folder or an object store's prefix.

    `include` and `exclude` are shell patterns over whole keys (`*` crosses '/'); an object is
    taken if any `include` matches (none given: all) and no `exclude` does. Hidden files (a path
    segment that begins with '.') and sidecars are never documents. `base_uri` replaces the part
    of each document's URI before its id; by default that is the source's own URI on an object
    store and nothing for a folder, so that the same files give the same bundle wherever they lie.
    `passed_over` says after `items` how many objects were no documents, and why.
    """

    def __init__(
        self,
        uri: str,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        base_uri: str | None = None,
    ) -> None:
        self.uri = uri
        self._store: Store = open_store(uri)
        self._include = tuple(include)
        self._exclude = tuple(exclude)
        self._base = base_uri if base_uri is not None else (uri if is_remote(uri) else "")
        self.passed_over: Counter[str] = Counter()

    def items(self) -> list[Item]:
        """Every document, ascending by id; what is none is counted in `passed_over`, by why.

        Raises ConfigurationError if there is no document.
        """
        listed = {info.key: info for info in self._store.list()}
        reasons = {key: self._why_not(key, listed) for key in listed}
        self.passed_over = Counter(reason for reason in reasons.values() if reason)
        items = [
            self._item(key, info.size, listed)
            for key, info in listed.items()
            if reasons[key] is None
        ]
        if not items:
            raise ConfigurationError(
                f"{self._store.uri} holds no documents (of {len(listed)} objects none was taken);"
                " check the URI and the include and exclude patterns"
            )
        return sorted(items, key=lambda item: (item.doc_id, item.key))

    def read(self, item: Item) -> tuple[bytes, Metadata]:
        """A document's bytes and its sidecar's metadata.

        Raises StorageError, and UnreadableDocument for a sidecar that cannot be understood.
        """
        data, _ = self._store.read(item.key)
        if item.sidecar is None:
            return data, {}
        return data, _sidecar(self._store.read(item.sidecar)[0], item.sidecar)

    def _item(self, key: str, size: int, listed: Mapping[str, Any]) -> Item:
        doc_id = unicodedata.normalize("NFC", key)
        sidecar = key + SIDECAR
        uri = join(self._base, doc_id) if self._base else doc_id
        return Item(key, doc_id, uri, size, sidecar if sidecar in listed else None)

    def _why_not(self, key: str, listed: Mapping[str, Any]) -> str | None:
        """Why an object is not a document, or None if it is one."""
        if any(part.startswith(".") for part in key.split("/")):
            return "hidden"
        if key.endswith(SIDECAR) and key.removesuffix(SIDECAR) in listed:
            return "sidecar"
        if self._include and not any(fnmatch.fnmatchcase(key, p) for p in self._include):
            return "not included"
        return "excluded" if any(fnmatch.fnmatchcase(key, p) for p in self._exclude) else None


def _sidecar(data: bytes, key: str) -> Metadata:
    try:
        attributes = json.loads(data)["metadataAttributes"]
        return dict(_flat(attributes))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableDocument(
            f'its sidecar {key} is not {{"metadataAttributes": {{name: value}}}} ({error})'
        ) from None


def _flat(attributes: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in attributes.items():
        if isinstance(value, dict):
            # Bedrock's second form: {"value": {"type": "NUMBER", "numberValue": 1}, …}
            inner = value.get("value")
            if isinstance(inner, dict) and "type" in inner:
                yield f"{prefix}{name}", next(v for k, v in inner.items() if k != "type")
            else:
                yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, Scalar) or _is_scalar_list(value):
            yield f"{prefix}{name}", value
        else:
            raise TypeError(f"{prefix}{name} is {type(value).__name__}")


def _is_scalar_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Scalar) for item in value)

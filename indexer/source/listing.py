"""Which objects are documents: a stream over the store's listing, in key order."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from indexer.sidecar import SIDECAR
from rag.storage import ObjectInfo


class Item(NamedTuple):
    """One object that is a document, or a corpus of them, and has not been read yet; `sidecar` is
    the object that holds its metadata, or None.
    """

    info: ObjectInfo
    sidecar: ObjectInfo | None = None

    @property
    def key(self) -> str:
        return self.info.key

    @property
    def size(self) -> int:
        return self.info.size


class Patterns:
    """Shell patterns over whole keys (`*` crosses '/'): an object is taken if any `include`
    matches (none given: all) and no `exclude` does. Hidden objects (a path segment that begins
    with '.') never are.
    """

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include = _matcher(include)
        self._exclude = _matcher(exclude)

    def why_not(self, key: str) -> str | None:
        """Why an object is not taken, or None."""
        if key.startswith(".") or "/." in key:
            return "hidden"
        if self._include is not None and not self._include(key):
            return "not included"
        return "excluded" if self._exclude is not None and self._exclude(key) else None


def documents(
    listed: Iterable[ObjectInfo], patterns: Patterns, passed_over: Counter[str]
) -> Iterator[Item]:
    """The documents among `listed`, which ascends by key, each with its sidecar.

    Only as many objects are held as lie between a document and the place of its sidecar. What is
    no document is counted in `passed_over`, by why.
    """
    waiting: deque[Item] = deque()
    for info in listed:
        owner = info.key.removesuffix(SIDECAR) if info.key.endswith(SIDECAR) else None
        place = next((i for i, item in enumerate(waiting) if item.key == owner), None)
        if place is not None:
            waiting[place] = Item(waiting[place].info, info)
            passed_over["sidecar"] += 1
            continue
        # A sidecar's key begins with its document's, and so does every key between the two.
        while waiting and not info.key.startswith(waiting[0].key):
            yield from _taken(waiting.popleft(), patterns, passed_over)
        waiting.append(Item(info))
    for item in waiting:
        yield from _taken(item, patterns, passed_over)


def _taken(item: Item, patterns: Patterns, passed_over: Counter[str]) -> Iterator[Item]:
    why = patterns.why_not(item.key)
    if why is None:
        yield item
    else:
        passed_over[why] += 1


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool] | None:
    if not patterns:
        return None
    found = re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns))
    return lambda key: found.match(key) is not None

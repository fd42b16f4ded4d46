"""Conditional writes over a wire that may lose the answer."""

from __future__ import annotations

import time

from rag.errors import ConditionFailed, ObjectNotFound, StorageError
from rag.storage import Store

_TRIES = 5
_PAUSE_S = 0.1


def settle(store: Store, key: str, data: bytes, *, expected: str | None) -> str:
    """`store.write`, with an outcome that is known: when the answer is lost, or a retry below
    meets its own earlier success, the object is read back, and counts as written if it holds
    `data`. Give data that nobody else writes. Returns the ETag.

    Raises ConditionFailed if the condition did not hold, StorageError when several tries failed.
    """
    for attempt in range(_TRIES):
        try:
            return store.write(key, data, expected=expected)
        except ObjectNotFound:
            raise ConditionFailed(f"{store.uri}/{key} is gone; nothing was written") from None
        except StorageError as error:
            found = _read(store, key)
            if found is not None and found[0] == data:
                return found[1]
            if isinstance(error, ConditionFailed) or attempt == _TRIES - 1:
                raise
            time.sleep(_PAUSE_S * 2**attempt)
    raise AssertionError("the last try returns or raises")


def _read(store: Store, key: str) -> tuple[bytes, str] | None:
    try:
        return store.read(key)
    except ObjectNotFound:
        return None

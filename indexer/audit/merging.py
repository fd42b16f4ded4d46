"""Two ascending sequences, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Pair(NamedTuple):
    """One value, and where it stands in either sequence, from 0; None: it is not there."""

    value: str
    left: int | None
    right: int | None


def side_by_side(left: Iterable[str], right: Iterable[str]) -> Iterator[Pair]:
    """The union of two ascending sequences, ascending; one value of each is held at a time."""
    ours, theirs = enumerate(left), enumerate(right)
    x, y = next(ours, None), next(theirs, None)
    while x is not None or y is not None:
        if x is not None and (y is None or x[1] < y[1]):
            yield Pair(x[1], x[0], None)
            x = next(ours, None)
        elif y is not None and (x is None or y[1] < x[1]):
            yield Pair(y[1], None, y[0])
            y = next(theirs, None)
        elif x is not None and y is not None:
            yield Pair(x[1], x[0], y[0])
            x, y = next(ours, None), next(theirs, None)

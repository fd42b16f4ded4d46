"""A run: what a search returned for every query, in order; and TREC's file format for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from rag.errors import EvaluationError
from rag.types import Float32

_SPACE = re.compile(r"\s")


class Ranking(NamedTuple):
    """Documents for one query, best first, each once; `scores` is float32 (len(doc_ids),)."""

    doc_ids: Sequence[str]
    scores: Float32


Run = dict[str, Ranking]
"""query id -> ranking; a query that found nothing may be missing."""


def ranking(query_id: str, doc_ids: Sequence[str], scores: Float32) -> Ranking:
    """The hits of one query as a ranking of documents.

    A document's place is that of its best passage; the document with the query's own id is left
    out (in some collections the queries are documents). `doc_ids` and `scores` are best first.
    """
    kept: dict[str, int] = {}
    for place, doc_id in enumerate(doc_ids):
        if doc_id != query_id:
            kept.setdefault(doc_id, place)
    return Ranking(list(kept), np.asarray(scores, dtype=np.float32)[list(kept.values())])


def write_trec(path: Path, run: Mapping[str, Ranking], tag: str) -> None:
    """Writes lines 'query Q0 document rank score tag'.

    Readers of this format sort by score alone and break ties in their own ways; a score that is
    not below its predecessor is lowered to the next float32 below it, which keeps our order.
    White space in ids, which the format cannot hold, is percent-encoded.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for query_id, found in run.items():
            name = _token(query_id)
            scores = strictly_descending(found.scores)
            for rank, (doc_id, score) in enumerate(zip(found.doc_ids, scores, strict=True), 1):
                file.write(f"{name} Q0 {_token(doc_id)} {rank} {score:.9g} {tag}\n")


def read_trec(path: Path) -> Run:
    """The run in a file of `write_trec`, or of any other tool: each query's lines by descending
    score. Raises EvaluationError with file and line.
    """
    found: dict[str, list[tuple[float, str]]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read ({error.strerror}); check it") from None
    for number, line in enumerate(lines, 1):
        fields = line.split()
        try:
            query_id, _, doc_id, _, score, _ = fields
            found.setdefault(query_id, []).append((float(score), doc_id))
        except ValueError:
            raise EvaluationError(
                f"{path}:{number}: {line[:80]!r} is not 'query Q0 document rank score tag'"
            ) from None
    run: Run = {}
    for query_id, hits in found.items():
        hits.sort(key=lambda hit: -hit[0])
        run[query_id] = Ranking(
            [doc_id for _, doc_id in hits], np.array([s for s, _ in hits], dtype=np.float32)
        )
    return run


def strictly_descending(scores: Float32) -> Float32:
    """`scores`, which descend, with ties lowered by one unit in the last place each."""
    lowered = np.array(scores, dtype=np.float32)
    for place in np.flatnonzero(np.diff(lowered) >= 0) + 1:
        # A lowered score may reach the next one in turn: walk until the order is strict again.
        while place < lowered.size and lowered[place] >= lowered[place - 1]:
            lowered[place] = np.nextafter(lowered[place - 1], np.float32(-np.inf))
            place += 1
    return lowered


def _token(text: str) -> str:
    return _SPACE.sub(lambda space: quote(space[0]), text)

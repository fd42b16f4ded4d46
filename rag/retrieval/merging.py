"""The passages of several queries into one list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rag.types import Passage

RANK_CONSTANT = 60.0


def merge_rankings(
    rankings: Sequence[Sequence[Passage]], top_k: int, *, k: float = RANK_CONSTANT
) -> list[Passage]:
    """Reciprocal rank fusion of lists that are best first: at most `top_k` passages, ranked anew.

    A passage's score is the mean over the lists of (k + 1) / (k + rank), 0 where a list lacks it:
    0..1, where 1 is first in every list. It keeps the leg scores of the list that ranked it best
    (the earliest of them). Ties by best rank, then by the earlier list. A smaller `top_k` gives a
    prefix. Cormack, Clarke and Büttcher, SIGIR 2009.
    """
    best: dict[str, tuple[int, int, Passage]] = {}
    totals: dict[str, float] = {}
    for line, ranking in enumerate(rankings):
        for place, passage in enumerate(ranking, start=1):
            name = passage.chunk_id
            totals[name] = totals.get(name, 0.0) + (k + 1.0) / (k + place)
            if name not in best or place < best[name][0]:
                best[name] = (place, line, passage)
    order = sorted(best, key=lambda name: (-totals[name], best[name][:2]))[:top_k]
    return [
        replace(best[name][2], rank=rank, score=totals[name] / len(rankings))
        for rank, name in enumerate(order, start=1)
    ]

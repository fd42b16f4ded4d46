"""Lists of passages made into one: those of several queries, and those that were read again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rag.types import Float32, LegScore, Passage

RANK_CONSTANT = 60.0
POOL = 100
"""Passages of each of several queries that are merged. It does not depend on how many are wanted,
so that a smaller `top_k` gives a prefix."""
RERANK_DEPTH = 50
"""Passages that a reranker reads, for the same reason."""


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
        best[name][2]._replace(rank=rank, score=totals[name] / len(rankings))
        for rank, name in enumerate(order, start=1)
    ]


def merged(
    rankings: Sequence[Sequence[Passage]], top_k: int, *, min_score: float | None = None
) -> list[Passage]:
    """The passages of all searches. One search keeps its scores; of several, `min_score` holds
    for each search's own scores, before they are merged by rank.
    """
    kept = [
        [passage for passage in ranking if min_score is None or passage.score >= min_score]
        for ranking in rankings
    ]
    return kept[0] if len(kept) == 1 else merge_rankings(kept, top_k)


def reordered(passages: Sequence[Passage], scores: Float32) -> list[Passage]:
    """The first len(scores) passages by descending score of a reranker, then the rest.

    Ties keep their order. A passage that was read has the reranker's score as its `score`, and its
    rank and score in `rerank`; all have new ranks from 1.
    """
    order = np.argsort(-scores, kind="stable")
    read = [
        passages[place]._replace(
            rank=rank,
            score=float(scores[place]),
            rerank=LegScore(rank, float(scores[place])),
        )
        for rank, place in enumerate(order, start=1)
    ]
    rest = enumerate(passages[len(scores) :], start=len(scores) + 1)
    return read + [passage._replace(rank=rank) for rank, passage in rest]

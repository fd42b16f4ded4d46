"""What a reranker is, whatever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rag.types import Float32


class Reranker(Protocol):
    """Judges passages by reading each of them together with the query.

    `name` says which model judges. `concurrency` is how many calls of `score` at once are of use:
    one where each call has the processor to itself, several where a call waits for an endpoint.
    """

    @property
    def name(self) -> str: ...

    @property
    def concurrency(self) -> int: ...

    def score(self, query: str, texts: Sequence[str], *, deadline: float | None = None) -> Float32:
        """float32 (len(texts),), finite, in the order of `texts`; higher is more relevant.

        Scores of one model compare with each other, those of two models do not: a logit goes
        through the activation that the model states, a sigmoid where it states none. An empty
        sequence gives an empty array. `deadline` is a `time.monotonic()` moment, None for none.
        Blocks; safe to call from several threads. Raises RerankerFailure or one of its kinds.
        """
        ...

    def close(self) -> None:
        """Lets go of connections and threads; may be called more than once."""
        ...

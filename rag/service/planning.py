"""How one deadline is spent over the stages, and what is left out when time is short.

A part of the time is kept for the answer: the reranker is skipped where it would eat into it,
fewer passages go into the prompt where less than it is left, and where next to nothing is left no
generator is asked.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

SHARE = 0.6
"""Of a request's whole time, the most that is kept for its answer."""
FULL_SHARE = 0.75
"""Of what is kept; with less than this left, fewer passages go into the prompt."""
LEAST_SHARE = 0.1
"""Of what is kept; with less than this left there is no use in asking a generator."""
MARGIN_S = 0.05
"""Left to send the reply, where no answer is made."""


@dataclass(frozen=True, slots=True)
class TimePlan:
    """The plan of one request: `deadline` is a `time.monotonic()` moment, `reserve_s` the seconds
    that are kept for the answer, 0 where none is wanted.
    """

    deadline: float
    reserve_s: float

    @classmethod
    def of(cls, arrived: float, deadline: float, *, reserve_s: float) -> TimePlan:
        """For a request that `arrived` when it did and may have `reserve_s` for its answer."""
        return cls(deadline, min(reserve_s, SHARE * max(0.0, deadline - arrived)))

    @property
    def retrieved_by(self) -> float:
        """When the passages should be there."""
        return self.deadline - max(self.reserve_s, MARGIN_S)

    def passages(self, count: int) -> int:
        """How many of `count` passages the prompt should hold: all while most of the reserve is
        left, else the same share of them that is left of it, at least one.
        """
        left = self.deadline - time.monotonic()
        if self.reserve_s <= 0 or left >= FULL_SHARE * self.reserve_s:
            return count
        return min(count, max(1, math.floor(count * left / self.reserve_s)))

    @property
    def may_generate(self) -> bool:
        """Whether there is time to ask a generator at all."""
        return self.deadline - time.monotonic() > LEAST_SHARE * self.reserve_s

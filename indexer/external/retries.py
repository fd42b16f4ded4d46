"""How often a database is asked again: tenacity's retries, as for generators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from rag.errors import DatabaseUnavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retries:
    """Up to `attempts` in all, with waits in seconds that double from `wait_initial_s`, or of the
    length that the database asked for, at most `wait_max_s`.
    """

    attempts: int = 5
    wait_initial_s: float = 0.5
    wait_max_s: float = 20.0

    def __call__(self, work: Callable[[], T]) -> T:
        """What `work` gives, which must be harmless to do twice; the last DatabaseUnavailable."""
        grown = wait_exponential_jitter(
            multiplier=self.wait_initial_s, max=self.wait_max_s, jitter=self.wait_initial_s
        )

        def wait_s(state: RetryCallState) -> float:
            failure = None if state.outcome is None else state.outcome.exception()
            asked = getattr(failure, "retry_after_s", None) or 0.0
            return min(max(float(grown(state)), asked), self.wait_max_s)

        retrying = Retrying(
            retry=retry_if_exception_type(DatabaseUnavailable),
            wait=wait_s,
            stop=stop_after_attempt(self.attempts),
            reraise=True,
        )
        return retrying(work)

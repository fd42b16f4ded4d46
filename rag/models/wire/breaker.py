"""A circuit breaker per endpoint: an endpoint that keeps failing is left alone for a while.

The states are purgatory's (`purgatory.domain.model.Context`): of the breakers for Python it is the
one that is typed, needs no other package, and keeps its state apart from the calling, so that it
can follow a stream of tokens. (pybreaker holds a lock while it calls and knows coroutines only
through Tornado; aiobreaker has had no release since 2021.) What is added here: one probe at a time
while half open, and a caller who leaves counts neither as success nor as failure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from purgatory.domain.messages.events import ContextChanged
from purgatory.domain.model import Context, OpenedState

from rag.errors import GeneratorCircuitOpen

BreakerState = Literal["closed", "half_open", "open"]
Observe = Callable[[str, BreakerState], None]
"""Hears (name of the endpoint, its new state)."""

_STATES: dict[str, BreakerState] = {
    "closed": "closed",
    "half-opened": "half_open",
    "opened": "open",
}


class Permit:
    """Leave to ask once, as the probe of a half-open circuit or not. What is said first of how it
    ended counts.
    """

    def __init__(self, breaker: Breaker, *, is_probe: bool) -> None:
        self.is_probe = is_probe
        self._breaker = breaker
        self._open = True

    def succeeded(self) -> None:
        self._end(self._breaker._succeeded)

    def failed(self) -> None:
        self._end(self._breaker._failed)

    def abandoned(self) -> None:
        """Nothing has been learnt of the endpoint."""
        self._end(self._breaker._abandoned)

    def _end(self, tell: Callable[[Permit], None]) -> None:
        if self._open:
            self._open = False
            tell(self)


class Breaker:
    """Opens after `threshold` failures in a row, and lets one probe through after `open_for_s`
    seconds: it closes the circuit, or opens it for as long again.

    `observe` hears of the state at the beginning and of each change. Lives on one event loop.
    """

    def __init__(
        self,
        name: str,
        *,
        threshold: int = 5,
        open_for_s: float = 15.0,
        observe: Observe | None = None,
    ) -> None:
        self.name = name
        self._context = Context(name, threshold, open_for_s)
        self._open_for_s = open_for_s
        self._probe: Permit | None = None
        self._observe = observe or (lambda name, state: None)
        self._observe(name, self.state)

    @property
    def state(self) -> BreakerState:
        """As the last request left it: an open circuit is half open from its next request on."""
        return _STATES[self._context.state]

    def admit(self) -> Permit:
        """Leave to ask the endpoint; GeneratorCircuitOpen while it is left alone."""
        if self._probe is not None:
            raise self._refusal()
        try:
            self._context.handle_new_request()
        except OpenedState:
            raise self._refusal() from None
        self._tell()
        permit = Permit(self, is_probe=self.state == "half_open")
        if permit.is_probe:
            self._probe = permit
        return permit

    def _succeeded(self, permit: Permit) -> None:
        if self._counts(permit):
            self._context.handle_end_request()
            self._tell()

    def _failed(self, permit: Permit) -> None:
        if self._counts(permit):
            self._context.handle_exception(GeneratorCircuitOpen(""))
            self._tell()

    def _abandoned(self, permit: Permit) -> None:
        self._counts(permit)

    def _counts(self, permit: Permit) -> bool:
        """While half open only the probe's outcome counts, not that of requests from before."""
        if self._probe is permit:
            self._probe = None
            return True
        return self.state == "closed"

    def _tell(self) -> None:
        messages, self._context.messages = self._context.messages, []
        for message in messages:
            if isinstance(message, ContextChanged):
                self._observe(self.name, _STATES[message.state])

    def _refusal(self) -> GeneratorCircuitOpen:
        wait_s = max(1, math.ceil(self._open_for_s))
        return GeneratorCircuitOpen(
            f"generator endpoint {self.name} failed too often and is left alone for up to"
            f" {wait_s} s: check it",
            retry_after_s=wait_s,
        )

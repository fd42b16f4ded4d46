"""What can go wrong: LocalError is all of it.

LocalError
├── EngineError      the container engine refused, or there is none
├── InvalidInput     something that was given makes no sense
├── StartFailed      a container ended, or never answered /ping
└── ModelError       a container answered an invocation with a failure
"""

from __future__ import annotations


class LocalError(Exception):
    """Everything that this package raises on purpose."""


class EngineError(LocalError):
    """The container engine refused, or there is none."""


class InvalidInput(LocalError):
    """Something that was given makes no sense."""


class StartFailed(LocalError):
    """A container ended, or never answered /ping."""


class ModelError(LocalError):
    """The container answered with a failure, as a caller of the platform sees it."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the container answered {status}: {body[:500].decode(errors='replace')}")
        self.status = status
        self.body = body

"""Blocking work beside the event loop, on threads that a stop does not wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Background:
    """Runs functions on daemon threads. An executor's threads would hold the exit."""

    def __init__(self) -> None:
        self._threads: set[threading.Thread] = set()

    @property
    def busy(self) -> bool:
        """Whether a function is still running, its caller gone or not."""
        return any(thread.is_alive() for thread in self._threads)

    async def run(self, name: str, work: Callable[[], T]) -> T:
        """What `work` returns or raises, from a thread called `name`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.done():  # the caller was cancelled
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def body() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:  # noqa: BLE001 - it is its caller's
                error = raised
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

        thread = threading.Thread(target=body, name=name, daemon=True)
        self._threads = {known for known in self._threads if known.is_alive()} | {thread}
        thread.start()
        return await future

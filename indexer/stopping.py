"""How a build is asked to stop, and says that it did."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rag.errors import BuildStopped

GRACE_S = 15.0
"""Seconds between the signal and the end of the process, whatever it is doing."""
EXIT_CODE = 128 + signal.SIGTERM


class Stop:
    """Set once, from a signal handler or another thread; work calls `check` between its steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def check(self) -> None:
        """Raises BuildStopped once it is set."""
        if self._event.is_set():
            raise BuildStopped("stopped by a signal; run the same command again to go on")


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """A Stop that SIGTERM and SIGINT set; to be used on the main thread.

    Where the work does not end within GRACE_S, inside of a library that looks up for nothing, the
    process ends by itself: what a checkpoint holds was written when it was made.
    """
    stop, done = Stop(), threading.Event()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # Python runs handlers between two steps of the main thread, which may be minutes away; the
    # byte that it writes to this pipe is there at once.
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _noted) for number in (signal.SIGTERM, signal.SIGINT)}

    def watch() -> None:
        try:
            wait_for_signal()
        finally:
            os.close(reader)

    def wait_for_signal() -> None:
        while (received := os.read(reader, 1)) not in (bytes([n]) for n in before):
            if not received:
                return
        stop.set()
        if not done.wait(GRACE_S):
            print("rag-indexer: stopped by a signal", file=sys.stderr, flush=True)
            os._exit(EXIT_CODE)

    threading.Thread(target=watch, daemon=True, name="signals").start()
    try:
        yield stop
    finally:
        done.set()
        signal.set_wakeup_fd(wakeup)
        os.close(writer)  # ends the watch where no signal came
        for number, handler in before.items():
            signal.signal(number, handler)


def _noted(number: int, frame: FrameType | None) -> None:
    """Python writes to the pipe only for signals that have a handler."""

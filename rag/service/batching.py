"""Batching by backpressure: an idle worker starts at once, a busy one accumulates the next batch.

There are no timers. Every waiter gets an answer: a result, its own error, or DeadlineExceeded at
its deadline; nothing is computed for a caller who has left.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from rag.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelFailure,
    NotReady,
    Overloaded,
    RequestError,
)

logger = logging.getLogger(__name__)
In = TypeVar("In")
Out = TypeVar("Out")


class BatchStats(NamedTuple):
    """One batch that was run: items, their summed cost, the wait of each that waited and the run,
    seconds.
    """

    items: int
    cost: int
    waits_s: list[float]
    run_s: float


@dataclass(eq=False, slots=True)
class _Waiter(Generic[In, Out]):
    """One `submit`: `future` belongs to `loop` and is only ever set there."""

    item: In
    cost: int
    deadline: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Out]
    since: float = field(default_factory=time.monotonic)


class Batcher(Generic[In, Out]):
    """Gathers items into batches for a blocking function, and hands each caller its own result.

    `run` takes items in the order of their arrival and gives one result for each, in order, in
    parts of any size, each of which is handed out as soon as it is there; it is called on `workers`
    threads of this batcher, among which items are divided. `cost` of an item counts against
    `budget` per batch; an item dearer than the budget is refused at admission, so that nothing
    starves. At most `max_waiting` items wait. `stalled_after_s` bounds how long a run may take
    before the batcher calls itself unhealthy. `observe` is called with each batch's stats, on its
    worker.
    """

    def __init__(
        self,
        run: Callable[[Sequence[In]], Iterable[Sequence[Out]]],
        *,
        cost: Callable[[In], int],
        budget: int,
        max_waiting: int,
        name: str,
        workers: int = 1,
        stalled_after_s: float = 120.0,
        observe: Callable[[BatchStats], None] | None = None,
    ) -> None:
        self._run = run
        self._cost = cost
        self._budget = budget
        self._max_waiting = max_waiting
        self._name = name
        self._stalled_after_s = stalled_after_s
        self._observe = observe
        self._wake = threading.Condition()
        self._waiting: dict[_Waiter[In, Out], None] = {}
        self._running: dict[threading.Thread, tuple[float, list[_Waiter[In, Out]]]] = {}
        self._threads: list[threading.Thread | None] = [None] * workers
        self._seconds_per_cost = 0.0
        self._closed = False

    async def submit(self, item: In, *, deadline: float) -> Out:
        """The result for `item`; `deadline` is a `time.monotonic()` moment.

        Raises InvalidRequest for an item dearer than the budget, Overloaded when the queue is
        full, NotReady when closed, DeadlineExceeded at the deadline, and ModelFailure when `run`
        fails on this item; a RequestError that `run` raises for it passes through.
        """
        waiter = self._admit(item, deadline)
        timer = waiter.loop.call_at(deadline, self._expire, waiter.future)
        try:
            return await waiter.future
        except BaseException:
            with self._wake:
                self._waiting.pop(waiter, None)
            raise
        finally:
            timer.cancel()

    def _expire(self, future: asyncio.Future[Out]) -> None:
        if not future.done():
            future.set_exception(
                DeadlineExceeded(
                    f"{self._name} had no result before the deadline; raise deadline_ms or retry"
                )
            )

    def _admit(self, item: In, deadline: float) -> _Waiter[In, Out]:
        cost = self._cost(item)
        if cost > self._budget:
            raise InvalidRequest(
                f"the input costs {cost} tokens, {self._name} takes {self._budget}; shorten it"
            )
        loop = asyncio.get_running_loop()
        waiter: _Waiter[In, Out] = _Waiter(item, cost, deadline, loop, loop.create_future())
        with self._wake:
            if self._closed:
                raise NotReady(f"{self._name} is shutting down; retry elsewhere")
            if not self._revive():
                raise ModelFailure(
                    f"{self._name} has no worker thread and cannot start one; retry elsewhere"
                )
            if len(self._waiting) >= self._max_waiting:
                raise Overloaded(
                    f"{len(self._waiting)} requests wait for {self._name}; retry later",
                    retry_after_s=self._backlog_s(),
                )
            self._waiting[waiter] = None
            self._wake.notify()
        return waiter

    @property
    def depth(self) -> int:
        """How many items wait."""
        return len(self._waiting)

    @property
    def healthy(self) -> bool:
        """True while every worker lives, or could be started again, and none is stalled."""
        with self._wake:
            limit = time.monotonic() - self._stalled_after_s
            stalled = any(began < limit for began, _ in self._running.values())
            return not self._closed and not stalled and self._revive()

    async def close(self, *, drain_s: float = 0.0) -> None:
        """Admits nothing more, lets waiters finish for `drain_s` seconds, fails those left."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        end = time.monotonic() + drain_s
        while (self._waiting or self._running) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        with self._wake:
            left = [*self._waiting]
            left += [waiter for _, batch in self._running.values() for waiter in batch]
            self._waiting.clear()
            self._wake.notify_all()
        _deliver((w, NotReady(f"{self._name} is shutting down; retry elsewhere")) for w in left)

    def join(self, timeout_s: float) -> bool:
        """After `close`: True when every worker thread has ended within `timeout_s`.

        What it ran is let go of then: that may be a method of who has this batcher, and what the
        two of them hold would be freed only when the collector of cycles next looks.
        """
        end = time.monotonic() + timeout_s
        threads = [thread for thread in self._threads if thread is not None]
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        ended = not any(thread.is_alive() for thread in threads)
        if ended:
            self._run, self._observe = _run_nothing, None
        return ended

    def _backlog_s(self) -> float:
        """How long the waiting items will take, judged by recent batches; at least a second."""
        return max(1.0, self._seconds_per_cost * sum(w.cost for w in self._waiting))

    def _revive(self) -> bool:
        """Starts every worker that is not alive; called with the lock held."""
        for place, thread in enumerate(self._threads):
            if thread is not None and thread.is_alive():
                continue
            name = f"{self._name}-{place}"
            fresh = threading.Thread(target=self._work, name=name, daemon=True)
            try:
                fresh.start()
            except RuntimeError as error:  # the system gives no more threads
                logger.error("worker %s cannot start: %s", name, error)
                return False
            if thread is not None:
                logger.warning("worker %s had died and was started again", name)
            self._threads[place] = fresh
        return True

    def _work(self) -> None:
        me = threading.current_thread()
        batch: list[_Waiter[In, Out]] = []
        try:
            while batch := self._next_batch(me):
                self._answer(batch)
                batch = []  # nothing of theirs is held while there is nothing to do
        except BaseException as error:
            # Whatever ends a worker (SystemExit in a library, say), its callers hear of it.
            logger.exception("worker %s died", me.name)
            _deliver((waiter, self._failure(error)) for waiter in batch)
        finally:
            with self._wake:
                self._leave(me)

    def _leave(self, me: threading.Thread) -> None:
        """Frees a worker's place and, if others wait, starts its successor; the lock is held."""
        self._running.pop(me, None)
        self._threads = [None if thread is me else thread for thread in self._threads]
        if not self._waiting or self._revive():
            return
        left, self._waiting = [*self._waiting], {}
        failure = f"{self._name} has no worker thread and cannot start one; retry elsewhere"
        _deliver((waiter, ModelFailure(failure)) for waiter in left)

    def _next_batch(self, me: threading.Thread) -> list[_Waiter[In, Out]]:
        """Blocks until there is something to run; empty when closed and drained."""
        with self._wake:
            self._running.pop(me, None)
            while not (batch := self._take()) and not self._closed:
                self._wake.wait()
            if batch:
                self._running[me] = (time.monotonic(), batch)
            return batch

    def _take(self) -> list[_Waiter[In, Out]]:
        """The longest prefix of the queue within the budget, and no more than one worker's share
        of what is waiting and running; the lock is held.

        Those who left are dropped, and so are those past their deadline: `submit` answers them.
        """
        batch: list[_Waiter[In, Out]] = []
        left, now = self._budget, time.monotonic()
        running = sum(len(others) for _, others in self._running.values())
        share = -(-(len(self._waiting) + running) // len(self._threads))
        while self._waiting and len(batch) < share:
            waiter = next(iter(self._waiting))
            if not waiter.future.done() and waiter.deadline > now:
                if waiter.cost > left:
                    break
                batch.append(waiter)
                left -= waiter.cost
            del self._waiting[waiter]
        return batch

    def _answer(self, batch: list[_Waiter[In, Out]]) -> None:
        began, given = time.monotonic(), 0
        try:
            for part in self._run([waiter.item for waiter in batch]):
                given += len(part)
                if given > len(batch):
                    break
                _deliver(zip(batch[given - len(part) : given], part, strict=True))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the callers
            left = batch[given:]
            if len(batch) == 1:
                _deliver([(batch[0], self._failure(error))])
            else:
                # One item that cannot be computed must not fail its neighbours.
                logger.warning("%s failed on %d items; trying each", self._name, len(left))
                for waiter in left:
                    if not waiter.future.done():
                        self._answer([waiter])
                return
        else:
            if given != len(batch):
                self._tell_wrong_number(batch, given)
        self._account(batch, began)

    def _tell_wrong_number(self, batch: list[_Waiter[In, Out]], given: int) -> None:
        """Fails those of `batch` who have no result yet: nobody knows which are whose."""
        failure = f"{self._name} gave {given} results for {len(batch)} inputs"
        logger.error(failure)
        _deliver((waiter, ModelFailure(f"{failure}; the log has more")) for waiter in batch)

    def _account(self, batch: list[_Waiter[In, Out]], began: float) -> None:
        run_s, cost = time.monotonic() - began, sum(waiter.cost for waiter in batch)
        pace = run_s / max(1, cost)
        known = self._seconds_per_cost
        self._seconds_per_cost = pace if known == 0.0 else 0.8 * known + 0.2 * pace
        if self._observe is not None:
            waits = [began - waiter.since for waiter in batch]
            self._observe(BatchStats(len(batch), cost, waits, run_s))

    def _failure(self, error: BaseException) -> RequestError:
        """`error` as its caller gets it: the cause goes to the log, not into the message."""
        if isinstance(error, RequestError):
            return error
        failure = ModelFailure(f"{self._name} failed on this request; the log has the cause")
        failure.__cause__ = error
        return failure


def _run_nothing(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    """In place of the function of a batcher that is closed; it is never called."""
    raise RuntimeError(f"{len(items)} items for a batcher that is closed")


def _deliver(outcomes: Iterable[tuple[_Waiter[Any, Any], Any]]) -> None:
    """Hands results or errors to their callers, one wake-up per event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for waiter, outcome in outcomes:
        by_loop.setdefault(waiter.loop, []).append((waiter.future, outcome))
    for loop, settled in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, settled)
        except RuntimeError:  # the loop is closed: nobody waits there any more
            logger.debug("%d results had no caller left", len(settled))


def _settle(settled: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, outcome in settled:
        if future.done():
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

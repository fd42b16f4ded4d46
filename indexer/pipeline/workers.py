"""Processes that parse: each document under a limit of time and of memory.

A document that hangs, crashes its parser's C code or asks for too much memory costs its own line
in the report: the process is killed and replaced, and the other documents of its batch are tried
again, one by one.
"""

from __future__ import annotations

import os
import queue
import resource
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TimedOut
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from pebble import ProcessExpired, ProcessPool

from indexer.pipeline.records import Failure, RawDocument, decode, empty_batch, encode
from indexer.pipeline.stages import ParseStage, StageOptions, content_digest
from indexer.stopping import Stop
from rag.errors import BuildError
from rag.models.threads import usable_cpus

MIB = 2**20
_NICENESS = 5  # the encoder and the search for the next batch go first
_CLOSE = 0.7
"""Who took this share of the limit has probably been refused more."""
_AHEAD = 2  # batches a worker has before it, so that it never waits

_stage: ParseStage | None = None
_suspicious = 0  # bytes of address space


@dataclass(frozen=True, slots=True)
class Limits:
    """What one document may take: seconds, and memory beside the program itself, in bytes.
    `processes` parse at once; None: as many as there are CPUs for this process.
    """

    seconds: float = 120.0
    memory: int = 2048 * MIB
    processes: int | None = None


class _Done(NamedTuple):
    """A batch with its result; `first` while its documents were not yet taken apart."""

    batch: Sequence[RawDocument]
    result: Future[bytes] | bytes
    first: bool


class Workers:
    """A pool of such processes; a context manager that leaves none behind.

    Processes are started afresh (`forkserver`): a program that builds must be importable, so its
    main module needs the usual `if __name__ == "__main__":`.
    """

    def __init__(self, options: StageOptions, limits: Limits) -> None:
        self._limits = limits
        self._count = limits.processes or usable_cpus()
        context = get_context("forkserver")
        context.set_forkserver_preload(["__main__", __name__])
        self._pool = ProcessPool(
            max_workers=self._count,
            initializer=_start,
            initargs=(options, limits.memory),
            context=context,
        )
        self._results: queue.Queue[_Done | Exception | None] = queue.Queue()
        self._room = threading.Semaphore(self._count * (1 + _AHEAD))
        self._open = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._room.release(1 << 16)  # the feeding thread may wait for room that never comes
        self._pool.join()

    def parse(
        self, batches: Iterable[Sequence[RawDocument] | bytes], stop: Stop
    ) -> Iterator[bytes]:
        """The encoded `ParsedBatch` of each batch, as they are done; encoded ones pass through.

        `batches` is read on a thread of its own, a few ahead of the processes. Raises what reading
        them raises, and BuildStopped once `stop` is set.
        """
        feeder = threading.Thread(target=self._feed, args=(batches,), daemon=True)
        self._open = 1  # the feeder itself
        feeder.start()
        while self._open:
            stop.check()
            try:
                done = self._results.get(timeout=0.2)
            except queue.Empty:
                continue
            if isinstance(done, Exception):
                raise done
            if done is not None and done.first:
                self._room.release()
            payload = None if done is None else self._finished(done)
            with self._lock:
                self._open -= 1
            if payload is not None:
                yield payload

    def _feed(self, batches: Iterable[Sequence[RawDocument] | bytes]) -> None:
        try:
            for batch in batches:
                self._room.acquire()
                if not self._pool.active:
                    return
                self._submit(batch, first=True)
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits for it
            self._results.put(error)
        else:
            self._results.put(None)

    def _submit(self, batch: Sequence[RawDocument] | bytes, *, first: bool) -> None:
        with self._lock:
            self._open += 1
        if isinstance(batch, bytes):
            self._results.put(_Done((), batch, first))
            return
        future: Any = self._pool.schedule(_run, args=(batch,), timeout=self._limits.seconds)
        future.add_done_callback(lambda done: self._results.put(_Done(batch, done, first)))

    def _finished(self, done: _Done) -> bytes | None:
        """The result, or None where the batch's documents are now tried one by one."""
        if isinstance(done.result, bytes):
            return done.result
        try:
            return done.result.result()
        except (TimedOut, ProcessExpired, MemoryError) as error:
            if len(done.batch) == 1:
                return _failed(done.batch[0], self._reason(error))
        except BrokenProcessPool:
            raise BuildError(
                "the processes that parse were killed from outside, for want of memory perhaps:"
                " give --workers a smaller number, and run the command again"
            ) from None
        for raw in done.batch:
            self._submit([raw], first=False)
        return None

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, TimedOut):
            limit = f"{self._limits.seconds:g} s"
            return f"reading it takes longer than {limit}: split it, or raise the limit"
        if isinstance(error, MemoryError):
            limit = f"{self._limits.memory // MIB} MiB"
            return f"reading it takes more than {limit} of memory: split it, or raise the limit"
        code = error.exitcode if isinstance(error, ProcessExpired) else 0
        how = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        return f"its parser crashed ({how}): the file is damaged, or needs too much memory"


def _failed(raw: RawDocument, reason: str) -> bytes:
    """A batch of one document that could not be read; another run may have more luck."""
    failure = Failure(raw.mark, content_digest(raw), raw.doc_id, reason, False)
    return encode(empty_batch([failure]))


def _start(options: StageOptions, memory: int) -> None:
    global _stage, _suspicious
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides what ends
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.nice(_NICENESS)
    _stage = ParseStage(options)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = used + memory
    _suspicious = used + int(_CLOSE * memory)
    resource.setrlimit(resource.RLIMIT_AS, (min(wanted, hard) if hard > 0 else wanted, hard))


def _run(batch: Sequence[RawDocument]) -> bytes:
    if _stage is None:
        raise RuntimeError("the worker was not started")
    before = _most_memory()
    payload = _stage(batch)
    after = _most_memory()
    # Libraries that get no memory may call the file damaged: lxml does.
    if before < after and after > _suspicious and decode(payload).failures:
        if len(batch) > 1:
            os._exit(1)  # a new process tells by its own peak which of them it was
        raise MemoryError
    return payload


def _most_memory() -> int:
    """The most address space that this process has had, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmPeak:")[2].split(maxsplit=1)[0]) * 1024

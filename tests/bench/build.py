"""Builds against what they cannot be faster than, or must not be slower than.

    python tests/bench/build.py embedding   --data DATA [--passages N]
    python tests/bench/build.py parsing     --data DATA [--seconds S]
    python tests/bench/build.py incremental --data DATA [--passages N]
    python tests/bench/build.py memory      --data DATA [--passages N]
    python tests/bench/build.py bm25        --data DATA [--passages N]
    python tests/bench/build.py stages      --data DATA [--formats F,F]
    python tests/bench/build.py cpu         --data DATA --encoders EXPORTS [--passages N]

DATA has the folders scale/, documents/ and answers/. Passages are real text; beyond what there is
they are repeated under other ids. Where it is said so, random unit vectors stand in the encoder's
place.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.build import BuildOptions, BuildReport, build
from indexer.encoders import PassageEncoder
from indexer.pipeline.embedding import Encoder
from indexer.source import CorpusColumns, Source
from rag.models.encoder import EncoderConfig
from rag.types import Float32

if TYPE_CHECKING:
    from indexer.pipeline.stages import ParseStage

COLUMNS = CorpusColumns("text", "_id", "title")
# A call sorts its texts by length: over all of them, which needs all of them at once, or over 32.
PLAIN = "SentenceTransformer.encode(batch_size=32), 32 texts a call in document order"


class RandomEmbedder:
    """Unit vectors made from the digest of a batch's first text."""

    def __init__(self, config: EncoderConfig) -> None:
        self.config = config

    def embed_passages(self, texts: Sequence[str]) -> Float32:
        seed = int.from_bytes(hashlib.blake2b(texts[0].encode(), digest_size=8).digest(), "little")
        shape = (len(texts), self.config.dimension)
        rows = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


class TimedEncoder(PassageEncoder):
    """The encoder as ever; `loaded` is when the last one was ready."""

    loaded = 0.0

    def load(self) -> Any:
        embedder = super().load()
        TimedEncoder.loaded = time.perf_counter()
        return embedder


class RandomEncoder(PassageEncoder):
    """The bundle's encoder as ever, and random vectors for the passages."""

    def stage(self) -> Encoder:
        def load() -> Any:
            self.prepare()
            return RandomEmbedder(self._config)

        return Encoder(load, 8192, 1)


def with_encoder(kind: type[PassageEncoder]) -> None:
    """Builds of this process use it from here on."""
    import indexer.job

    indexer.job.PassageEncoder = kind  # type: ignore[misc]


def passages(data: Path, count: int, *, step: int = 1) -> Iterator[dict[str, str]]:
    """`count` passages, every `step`-th; repeated under other ids where there are not so many."""
    made = 0
    for turn in itertools.count():
        with gzip.open(data / "scale" / "msdocs-en.jsonl.gz", "rt", encoding="utf-8") as file:
            for line in itertools.islice(file, 0, None, step):
                row = json.loads(line)
                if turn:
                    row["_id"] = f"{turn}-{row['_id']}"
                    row["title"] = f"{row.get('title', '')} ({turn})"
                yield row
                made += 1
                if made == count:
                    return


def write_corpus(folder: Path, rows: Iterator[dict[str, str]]) -> Path:
    folder.mkdir()
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return folder


def options(work: Path, **more: Any) -> BuildOptions:
    more.setdefault("dense", {"kind": "flat"})
    return BuildOptions(encoder_cache=work / "encoders", **more)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started


def embedding(data: Path, work: Path, count: int, turns: int) -> None:
    """The build's rate of embedding, against the encoder alone and sentence-transformers alone."""
    from concurrent.futures import ThreadPoolExecutor

    from indexer.encoders import CPU_BATCH_TOKENS
    from rag.index.bundle import Bundle
    from rag.models.batches import length_batches
    from rag.models.onnx_embedder import OnnxEmbedder
    from rag.models.threads import usable_cpus
    from rag.models.tokenizer import Tokenizer
    from rag.models.torch_embedder import TorchEmbedder

    with_encoder(TimedEncoder)
    step = max(1, 570_000 // count)
    corpus = write_corpus(work / "corpus", passages(data, count, step=step))
    first = build(Source(str(corpus), columns=COLUMNS), work / "first", options(work))
    bundle = Bundle.open(first.folder)
    texts = [chunk.indexed_text for chunk in bundle.chunks(np.arange(first.chunks))]
    lengths = Tokenizer.load(bundle.encoder_folder).count(texts)
    print(f"{len(texts)} chunks, {lengths.mean():.0f} tokens on average, at most {lengths.max()}")
    alone = OnnxEmbedder(bundle.encoder_folder, threads=1)
    whole = OnnxEmbedder(bundle.encoder_folder, threads=usable_cpus())
    torch = TorchEmbedder(bundle.encoder_folder)
    torch.model.encode(texts[:32], batch_size=32, show_progress_bar=False)

    def callers() -> Float32:
        with ThreadPoolExecutor(usable_cpus()) as pool:
            parts = pool.map(
                lambda rows: (rows, alone.embed_passages([texts[row] for row in rows])),
                length_batches(lengths, CPU_BATCH_TOKENS),
            )
            vectors = np.empty((len(texts), 384), dtype=np.float32)
            for rows, part in parts:
                vectors[rows] = part
        return vectors

    ways: dict[str, Callable[[], Any]] = {
        "ONNX Runtime, a caller a CPU": callers,
        "ONNX Runtime, one caller": lambda: whole.embed_passages(texts),
        "PyTorch, length-sorted": lambda: torch.embed_passages(texts),
        "SentenceTransformer.encode(batch_size=32), all texts in one call": lambda: (
            torch.model.encode(texts, batch_size=32, show_progress_bar=False)
        ),
        PLAIN: lambda: [
            torch.model.encode(texts[at : at + 32], batch_size=32, show_progress_bar=False)
            for at in range(0, len(texts), 32)
        ],
    }
    builds = ("build, its start counted", "build, once the encoder is loaded")
    rates: dict[str, list[float]] = {name: [] for name in [*ways, *builds]}
    vectors: dict[str, Any] = {}
    for turn in range(turns):
        for name, way in ways.items():
            vectors[name], seconds = timed(way)
            rates[name].append(len(texts) / seconds)
        started = time.perf_counter()
        report = build(Source(str(corpus), columns=COLUMNS), work / f"again{turn}", options(work))
        took = {stage: report.seconds[stage] for stage in ("list", "read", "embed")}
        rates[builds[0]].append(len(texts) / (took["read"] + took["embed"]))
        ended = started + sum(took.values())
        rates[builds[1]].append(len(texts) / (ended - TimedEncoder.loaded))
    best = max(max(found) for name, found in rates.items() if name not in builds)
    plain = max(rates[PLAIN])
    print("| way | chunks/s, best | of the best alone | of plain encode |\n|---|--:|--:|--:|")
    for name, found in rates.items():
        rate = max(found)
        print(f"| {name} | {rate:.1f} | {rate / best:.1%} | {rate / plain:.2f} |")
    one, two = vectors["ONNX Runtime, a caller a CPU"], vectors["PyTorch, length-sorted"]
    print(f"worst cosine of ONNX Runtime and PyTorch: {np.einsum('nd,nd->n', one, two).min():.7f}")


def _markdown(data: bytes) -> None:
    from markdown_it import MarkdownIt

    MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(data.decode())


def _html(data: bytes) -> None:
    from bs4 import BeautifulSoup

    BeautifulSoup(data, "lxml").get_text()


def _pdf(data: bytes) -> None:
    import pypdfium2

    document = pypdfium2.PdfDocument(data)
    for page in document:
        page.get_textpage().get_text_range()
    document.close()


def _docx(data: bytes) -> None:
    import io

    import docx

    document = docx.Document(io.BytesIO(data))
    for paragraph in document.paragraphs:
        _ = paragraph.text
    for table in document.tables:
        for row in table.rows:
            _ = [cell.text for cell in row.cells]


def _xlsx(data: bytes) -> None:
    import io

    import openpyxl
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

    # As a stream, and to where cells end: a file that claims a million rows is never through else.
    workbook = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    for sheet in workbook.worksheets:
        if isinstance(sheet, ReadOnlyWorksheet):
            sheet.reset_dimensions()
            for row in sheet.iter_rows(values_only=True):
                _ = row


FORMATS: dict[str, tuple[str, Callable[[bytes], None]]] = {
    "md": ("documents/fastapi-docs/en", _markdown),
    "html": ("documents/mixed", _html),
    "pdf": ("documents/mixed", _pdf),
    "docx": ("documents/mixed", _docx),
    "xlsx": ("documents/mixed", _xlsx),
}


class Processors:
    """The time of processors that this process and its children take, in seconds, by 0.1 s."""

    def __init__(self) -> None:
        import psutil

        self._me = psutil.Process()
        self._spent: dict[int, float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.seconds = 0.0

    def __enter__(self) -> Processors:
        self._began = time.process_time()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.seconds = time.process_time() - self._began + sum(self._spent.values())

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            for child in self._me.children(recursive=True):
                try:
                    times = child.cpu_times()
                except Exception:  # noqa: BLE001 - it ended while it was asked
                    continue
                self._spent[child.pid] = times.user + times.system


def parsing(data: Path, work: Path, seconds: float) -> None:
    """A build without the encoder, against a loop over the parser's own library."""
    with_encoder(RandomEncoder)
    print("| format | documents | library's loop, s | build, s | of the loop | its parsing alone |"
          " loop, CPU s | build, CPU s | of the loop |")  # fmt: skip
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name, (folder, loop) in FORMATS.items():
        files = [file.read_bytes() for file in sorted((data / folder).rglob(f"*.{name}"))]
        files = _readable(files, loop, name)
        _, once = timed(lambda: [loop(file) for file in files])  # noqa: B023
        target = work / name
        target.mkdir()
        copies = max(1, round(seconds / once))
        for copy, (number, file) in itertools.product(range(copies), enumerate(files)):
            (target / f"{copy:04}-{number:04}.{name}").write_bytes(file)
        listed = sorted(target.iterdir())
        with Processors() as ours:
            report = build(Source(str(target)), work / f"{name}-bundle", options(work))
        began = time.process_time()
        _, alone = timed(lambda: [loop(path.read_bytes()) for path in listed])  # noqa: B023
        cpu_alone = time.process_time() - began
        total = sum(v for k, v in report.seconds.items() if k != "export")
        read = report.seconds["read"]
        print(f"| {name} | {len(listed)} | {alone:.1f} | {total:.1f} | {total / alone:.2f} |"
              f" {read / alone:.2f} | {cpu_alone:.1f} | {ours.seconds:.1f} |"
              f" {ours.seconds / cpu_alone:.2f} |", flush=True)  # fmt: skip


def _readable(files: list[bytes], loop: Callable[[bytes], None], name: str) -> list[bytes]:
    """The files that both the library and the project read."""
    from indexer.parsing import parse

    found = []
    for file in files:
        try:
            loop(file)
            parse(file, doc_id=f"x.{name}", uri="x")
        except Exception:  # noqa: BLE001 - broken on purpose, many of them
            continue
        found.append(file)
    return found


def incremental(data: Path, work: Path, count: int) -> None:
    """1 % of the passages changed, and nothing changed, against the full build."""
    with_encoder(RandomEncoder)
    rows = list(passages(data, count))
    corpus = write_corpus(work / "corpus", iter(rows))
    source = Source(str(corpus), columns=COLUMNS)
    with Peak() as peak:
        first, full = timed(lambda: build(source, work / "one", options(work)))
    _print_memory(first.folder, peak)
    print(f"full, random vectors for the encoder's: {full:.1f} s, {first.chunks} chunks")
    print({k: round(v, 1) for k, v in first.seconds.items()})
    for row in rows[:: max(1, count // (count // 100))]:
        row["text"] += " This was added."
    shutil.rmtree(corpus)
    write_corpus(corpus, iter(rows))
    again, seconds = timed(
        lambda: build(source, work / "two", options(work), previous=str(first.folder))
    )
    print(f"1 % changed: {seconds:.1f} s, {again.embedded} embedded; {again.seconds}")
    _, nothing = timed(
        lambda: build(
            source, work / "three", options(work), previous=str(again.folder), copy_unchanged=False
        )
    )
    print(f"nothing changed: {nothing:.2f} s")
    rate = _encoder_rate(work / "one", rows)
    whole = full + first.chunks / rate
    part = seconds + again.embedded / rate
    print(f"the encoder alone: {rate:.1f} chunks/s; with it {part:.1f} s of {whole:.1f} s:"
          f" {part / whole:.2%}")  # fmt: skip


def _encoder_rate(bundle: Path, rows: Sequence[dict[str, str]]) -> float:
    from rag.models.onnx_embedder import OnnxEmbedder

    embedder = OnnxEmbedder(bundle / "encoder")
    texts = [row["text"] for row in rows[:: max(1, len(rows) // 200)]][:200]
    _, seconds = timed(lambda: embedder.embed_passages(texts))
    return len(texts) / seconds


def spent(call: Callable[[], Any]) -> tuple[Any, float]:
    """What `call` returns, and the seconds of processors that it took."""
    started = time.process_time()
    return call(), time.process_time() - started


def stages(data: Path) -> ParseStage:
    """The processors' time of parsing, chunking and analysing, against the parser's library.

    Of each format every second file, at most 60, the best of three times. The stage has met their
    words before: what a worker learns at its start is spread over a whole build. Part by part, and
    then the stage as it is.
    """
    from indexer.pipeline.records import Mark, RawDocument
    from indexer.pipeline.stages import ParseStage, read_document
    from indexer.setup import Setup

    stage = ParseStage(Setup(Source(str(data)), BuildOptions()).stage_options())
    print("| format | documents | chunks | library, CPU s | parsing | chunking | analysing |"
          " stage | of the library |")  # fmt: skip
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name, (folder, loop) in FORMATS.items():
        files = [file.read_bytes() for file in sorted((data / folder).rglob(f"*.{name}"))[:120]]
        files = _readable(files, loop, name)
        raws = [RawDocument(Mark("k", "e"), f"x.{name}", "x", file) for file in files]
        stage(raws[1::2])
        raws = raws[::2]
        ours = min(spent(lambda: stage(raws))[1] for _ in range(3))  # noqa: B023
        alone = min(spent(lambda: [loop(raw.data) for raw in raws])[1] for _ in range(3))  # noqa: B023
        documents, parse = spent(lambda: [read_document(raw) for raw in raws])  # noqa: B023
        chunker, analyzer = stage.chunker, stage.analyzer
        chunks, chunk = spent(lambda: [c for d in documents for c in chunker.chunks(d)])  # noqa: B023
        texts = [c.indexed_text for c in chunks]
        _, analyse = spent(lambda: analyzer.batch(texts))  # noqa: B023
        print(f"| {name} | {len(raws)} | {len(chunks)} | {alone:.2f} | {parse:.2f} | {chunk:.2f} |"
              f" {analyse:.2f} | {ours:.2f} | {ours / alone:.2f} |", flush=True)  # fmt: skip
    return stage


def cpu(data: Path, work: Path, count: int) -> None:
    """The stages' time of processors, which other work on the machine hardly changes."""
    from indexer.encoders import CPU_BATCH_TOKENS
    from indexer.pipeline.records import Mark, RawDocument, decode
    from rag.models.onnx_embedder import OnnxEmbedder
    from rag.models.torch_embedder import TorchEmbedder

    stage = stages(data)
    rows = list(passages(data, count, step=max(1, 570_000 // count)))
    raws = [RawDocument(Mark("k", "e"), row["_id"], "u", row["text"].encode(), None, "jsonl",
                        row.get("title", ""), {}) for row in rows]  # fmt: skip
    batch, parsed = spent(lambda: decode(stage(raws)))
    texts = batch.texts(np.arange(len(batch.tokens)))
    encoders = work / "encoder"
    shutil.copytree(
        next(p for p in (work / "encoders").iterdir() if _is_default(p)) / "encoder", encoders
    )
    onnx = OnnxEmbedder(encoders, threads=1, max_batch_tokens=CPU_BATCH_TOKENS)
    torch = TorchEmbedder(encoders)
    ways = {
        "ONNX Runtime, one thread a caller (the build's)": lambda: onnx.embed_passages(texts),
        "PyTorch, length-sorted": lambda: torch.embed_passages(texts),
        "SentenceTransformer.encode(batch_size=32)": lambda: torch.model.encode(
            texts, batch_size=32, show_progress_bar=False
        ),
    }
    print(f"{len(texts)} chunks, {batch.tokens.mean():.0f} tokens on average")
    print("| way | chunks per CPU second |\n|---|--:|")
    found: dict[str, tuple[Any, float]] = {}
    for name, way in ways.items():
        found[name] = spent(way)
        print(f"| {name} | {len(texts) / found[name][1]:.1f} |", flush=True)
    ours = found["ONNX Runtime, one thread a caller (the build's)"]
    other = found["PyTorch, length-sorted"]
    print(f"| parsing, chunking and analysing | {len(texts) / parsed:.0f} |")
    print(f"the encoder's part of both: {ours[1] / (ours[1] + parsed):.1%}")
    print(f"worst cosine of the two: {np.einsum('nd,nd->n', ours[0], other[0]).min():.7f}")


def _is_default(export: Path) -> bool:
    about = json.loads((export / "encoder" / "encoder.json").read_text(encoding="utf-8"))
    return bool(about["dimension"] == 384)


class Peak:
    """The most memory that this process and its children hold at once (PSS, bytes)."""

    def __init__(self) -> None:
        import psutil

        self._me = psutil.Process()
        self.bytes = self.main = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(1.0):
            try:
                family = [self._me, *self._me.children(recursive=True)]
                held = [process.memory_full_info().pss for process in family]
            except Exception:  # noqa: BLE001 - a worker ended while it was asked
                continue
            self.bytes, self.main = max(self.bytes, sum(held)), max(self.main, held[0])


def memory(data: Path, work: Path, count: int) -> None:
    """The peak of a build's memory, against the size of its index."""
    with_encoder(RandomEncoder)
    corpus = write_corpus(work / "corpus", passages(data, count))
    gc.collect()
    with Peak() as peak:
        report: BuildReport
        report, seconds = timed(
            lambda: build(Source(str(corpus), columns=COLUMNS), work / "bundle", options(work))
        )
    print(f"{report.documents} documents, {report.chunks} passages, {seconds:.0f} s; random unit"
          f" vectors for the encoder's; {report.seconds}")  # fmt: skip
    _print_memory(report.folder, peak)


def _print_memory(folder: Path, peak: Peak) -> None:
    files = [p for p in folder.rglob("*") if p.is_file() and "encoder" not in p.parts]
    size = sum(path.stat().st_size for path in files)
    gib = 2.0**30
    print(f"index {size / gib:.2f} GiB (its encoder not counted); peak {peak.bytes / gib:.2f} GiB,"
          f" of which the main process {peak.main / gib:.2f}; limit (index + 1 GiB)"
          f" {size / gib + 1:.2f} GiB: {peak.bytes / (size + gib):.0%}")  # fmt: skip


def bm25(data: Path, work: Path, count: int) -> None:
    """The sparse leg from terms, against bm25s from the same; each in a process of its own."""
    from rag.index.analyzer import make_analyzer

    analyzer = make_analyzer("english")
    with (work / "terms.jsonl").open("w", encoding="utf-8") as file:
        for row in passages(data, count):
            file.write(json.dumps(analyzer.terms(row["text"])) + "\n")
    found: dict[str, list[tuple[float, float]]] = {"bm25s": [], "ours": []}
    for _ in range(2):
        for name in found:
            command = [sys.executable, __file__, f"bm25-{name}", "--data", str(work)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, mib = map(float, done.stdout.split()[-2:])
            found[name].append((seconds, mib))
    print("| way | s, best of 2 | memory beyond the terms, MiB |\n|---|--:|--:|")
    for name, runs in found.items():
        print(f"| {name} | {min(s for s, _ in runs):.2f} | {min(m for _, m in runs):.0f} |")


def bm25_one(work: Path, name: str) -> None:
    """Prints seconds and MiB of one way; both index, and save what they made."""
    import resource

    terms = [
        [sys.intern(term) for term in json.loads(line)] for line in (work / "terms.jsonl").open()
    ]
    target = Path(tempfile.mkdtemp(dir=work))
    if name == "bm25s":
        import bm25s

        bm25s.BM25(method="lucene").index([["warm", "up"]], show_progress=False)

        def index() -> None:
            model = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
            model.index(terms, show_progress=False)
            model.save(target)
    else:
        from rag.index.sparse import build_sparse

        build_sparse(target / "warm", [["warm", "up"]])

        def index() -> None:
            build_sparse(target, terms)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, seconds = timed(index)
    print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--passages", type=int)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--formats", help="Of `parsing` and `cpu`, with commas (default: all).")
    parser.add_argument("--encoders", type=Path, help="Folder that keeps exported encoders.")
    given = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if given.formats is not None:
        for name in set(FORMATS) - set(given.formats.split(",")):
            del FORMATS[name]
    if given.what.startswith("bm25-"):
        bm25_one(given.data, given.what.removeprefix("bm25-"))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if given.encoders is not None:
            (work / "encoders").symlink_to(given.encoders.absolute())
        match given.what:
            case "embedding":
                embedding(given.data, work, given.passages or 600, given.turns)
            case "parsing":
                parsing(given.data, work, given.seconds)
            case "incremental":
                incremental(given.data, work, given.passages or 100_000)
            case "memory":
                memory(given.data, work, given.passages or 1_000_000)
            case "cpu":
                cpu(given.data, work, given.passages or 120)
            case "stages":
                stages(given.data)
            case "bm25":
                bm25(given.data, work, given.passages or 100_000)
            case what:
                parser.error(f"there is no bench '{what}'")


if __name__ == "__main__":
    main()

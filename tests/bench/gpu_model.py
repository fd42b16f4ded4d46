"""The encoder on a device: right first, then fast."""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gpu_floors import Floors, Line, seconds

from indexer.exports import prepare_encoder
from rag.models.encoder import EncoderConfig, resolve
from rag.models.load import load_embedder
from rag.models.torch_embedder import load_sentence_transformer
from rag.service.encoding import EncoderStage
from rag.service.vector_cache import VectorCache

SAMPLE = Path(__file__).parents[2] / "eval" / "sample" / "documents"
CLIENTS = (1, 16, 64, 256)
QUERIES_EACH = 40


@functools.cache
def encoder_folder(work: str) -> Path:
    """The default encoder, exported once."""
    target = Path(work, "encoder")
    if not target.exists():
        source = resolve("default")
        prepare_encoder(source, target, EncoderConfig.read(source), safetensors=True, cache=None)
    return target


def texts(count: int) -> list[str]:
    """Paragraphs of the sample documents, over and over, each different by its number."""
    files = sorted(SAMPLE.rglob("*.md"))
    parts = [p for f in files for p in f.read_text("utf-8").split("\n\n") if len(p) > 80]
    return [f"{i} {part[:1500]}" for i, part in zip(range(count), itertools.cycle(parts))]


def load(options: argparse.Namespace, precision: str, **more: Any) -> Any:
    return load_embedder(
        encoder_folder(options.work),
        backend="torch",
        device=options.device,
        precision=precision,
        **more,
    )


def plain_model(options: argparse.Namespace, precision: str) -> Any:
    """The SentenceTransformer itself."""
    return load_sentence_transformer(encoder_folder(options.work), options.device, precision)  # type: ignore[arg-type]


def precisions(options: argparse.Namespace) -> tuple[str, ...]:
    return ("float32", "bfloat16") if options.device == "cpu" else ("float16", "bfloat16")


def check(options: argparse.Namespace, _: Floors) -> Iterator[Line]:
    """Cosine with float32 on the CPU, and the share of the same ten hits, by precision."""
    asked, passages = texts(8 if options.small else 64), texts(24 if options.small else 4000)
    cpu = load_embedder(encoder_folder(options.work), backend="torch", device="cpu")
    truth, queries = cpu.embed_passages(passages), cpu.embed_queries(asked)
    best = np.argsort(-(queries @ truth.T), axis=1)[:, :10]
    for precision in precisions(options):
        embedder = load(options, precision)
        vectors, others = embedder.embed_passages(passages), embedder.embed_queries(asked)
        found = np.argsort(-(others @ vectors.T), axis=1)[:, :10]
        same = np.mean([np.isin(a, b).mean() for a, b in zip(best, found, strict=True)])
        worst = float((vectors * truth).sum(axis=1).min())
        of = "float32 on the CPU"
        yield {"what": f"{precision}: worst cosine", "value": worst, "unit": "", "of": of}
        yield {"what": f"{precision}: same ten hits", "value": float(same), "unit": "", "of": of}


def encoder(options: argparse.Namespace, _: Floors) -> Iterator[Line]:
    """Queries a second through the service's batcher, against the best offline rate."""
    asked = [text[:120] for text in texts(16 if options.small else 16_384)]
    speedups = ("none",) if options.device == "cpu" else ("none", "graphs")
    for precision, speedup in itertools.product(precisions(options), speedups):
        embedder = load(options, precision, speedup=speedup)
        spent = seconds(lambda e=embedder: e.embed_queries(asked), options.device, 1)  # type: ignore[misc]
        offline = len(asked) / spent
        name = f"{precision}, speed-up {speedup}"
        of = "plain SentenceTransformer.encode, queries/s"
        plain = _plain(plain_model(options, precision), asked, options.device)
        what = f"{name}: offline"
        yield {"what": what, "value": offline, "unit": "q/s", "of": of, "floor": plain}
        for clients in CLIENTS[:2] if options.small else CLIENTS:
            each = 2 if options.small else QUERIES_EACH
            rate, times = asyncio.run(_through_batcher(embedder, asked, clients, each))
            p50, p99 = np.percentile(times, [50, 99]) * 1e3
            what = f"{name}: {clients} clients (p50 {p50:.2f} ms, p99 {p99:.2f} ms)"
            of = "the offline rate, queries/s"
            yield {"what": what, "value": rate, "unit": "q/s", "of": of, "floor": offline}


async def _through_batcher(
    embedder: Any, asked: Sequence[str], clients: int, each: int
) -> tuple[float, list[float]]:
    """Queries a second and the seconds of each, of so many callers that ask one after another."""
    stage = EncoderStage(
        embedder, cache=VectorCache(0), batch_max_tokens=embedder.max_batch_tokens,
        max_waiting=2 * clients,
    )  # fmt: skip
    times: list[float] = []

    async def client(number: int) -> None:
        for i in range(each):
            began = time.perf_counter()
            text = f"{number} {i} {asked[(number * each + i) % len(asked)]}"
            await stage.encode(text, deadline=time.monotonic() + 60)
            times.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    spent = time.perf_counter() - began
    await stage.close()
    return len(times) / spent, times


def indexing(options: argparse.Namespace, floors: Floors) -> Iterator[Line]:
    """Passages a second, against the model's FLOPs at the device's rate, and plain encode."""
    passages = texts(16 if options.small else 20_000)
    for precision in precisions(options):
        embedder = load(options, precision)
        lengths = np.minimum(embedder.query_tokens(passages), embedder.config.max_tokens)
        model = plain_model(options, precision)
        work = float(_flops(model, lengths).sum())
        spent = seconds(lambda e=embedder: e.embed_passages(passages), options.device, 1)  # type: ignore[misc]
        rate = len(passages) / spent
        name = f"{precision}: {rate * lengths.mean():,.0f} tokens/s, batches of"
        name += f" {embedder.max_batch_tokens} tokens"
        for of, floor in (
            (
                "FLOPs of the model at the measured bfloat16 rate",
                floors.flops * len(passages) / work,
            ),
            ("plain SentenceTransformer.encode", _plain(model, passages, options.device)),
        ):
            yield {"what": name, "value": rate, "unit": "passages/s", "of": of, "floor": floor}


def _flops(model: Any, lengths: Any) -> Any:
    """Of each text: two for every weight but the embeddings', and the attention's products."""
    transformer = model[0].auto_model
    weights = sum(p.numel() for n, p in transformer.named_parameters() if "embeddings" not in n)
    size, layers = transformer.config.hidden_size, transformer.config.num_hidden_layers
    return lengths * (2.0 * weights) + 4.0 * layers * size * lengths.astype(np.float64) ** 2


def _plain(model: Any, passages: Sequence[str], device: str) -> float:
    """Texts a second of sentence-transformers' own loop, in their order."""
    encode = functools.partial(model.encode, list(passages), batch_size=32)
    return len(passages) / seconds(encode, device, 1)

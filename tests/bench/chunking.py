"""How well chunks answer questions whose answering spans are known.

    python tests/bench/chunking.py [--corpus NAME ...] [--size N ...] [--baselines]

Prints recall, precision and IoU of the top 5 chunks, as percentages, over the questions of
chroma-chunking-eval (../shared/data/answers). As its authors count: in characters, the chunks of
all corpora in one index, text that two chunks repeat counted twice in the denominators.
Smith & Troynikov, "Evaluating Chunking Strategies for Retrieval", Chroma 2024.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from indexer.chunking import Chunker, ChunkerOptions
from rag.models.encoder import EncoderConfig, resolve
from rag.models.export import export_encoder
from rag.models.onnx_embedder import OnnxEmbedder
from rag.models.tokenizer import Tokenizer
from rag.types import Block, BlockKind, Document

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "answers" / "chroma-chunking-eval"
DEPTH = 5


class Piece(NamedTuple):
    corpus: str
    start: int
    end: int
    text: str


Method = Callable[[str, str], Iterator[Piece]]


def structured(tokenizer: Tokenizer, config: EncoderConfig, options: ChunkerOptions) -> Method:
    chunker = Chunker(tokenizer, config, options)

    def cut(corpus: str, text: str) -> Iterator[Piece]:
        blocks = tuple(
            Block(BlockKind.PARAGRAPH, *m.span())
            for m in re.finditer(r"\S(?:.|\n(?!\s*\n))*", text)
        )
        document = Document(corpus, corpus, corpus, text, blocks, "en", "text")
        for chunk in chunker.chunks(document):
            yield Piece(corpus, chunk.start, chunk.end, chunk.indexed_text)

    return cut


def windows(tokenizer: Tokenizer, size: int, overlap: int) -> Method:
    """Fixed windows of tokens, wherever they begin."""

    def cut(corpus: str, text: str) -> Iterator[Piece]:
        offsets = tokenizer.offsets(text)
        for first in range(0, len(offsets), size - overlap):
            start, end = int(offsets[first, 0]), int(offsets[first : first + size, 1][-1])
            yield Piece(corpus, start, end, text[start:end])

    return cut


def recursive(tokenizer: Tokenizer, size: int) -> Method:
    """Splits at the coarsest separator, splits what is too long at the next, joins neighbours."""

    def split(text: str, start: int, starts: np.ndarray, separators: list[str]) -> list[list[int]]:
        def count(a: int, b: int) -> int:
            return int(np.searchsorted(starts, b) - np.searchsorted(starts, a))

        bounds = [start, *(start + m.end() for m in re.finditer(re.escape(separators[0]), text))]
        done: list[list[int]] = []
        for a, b in zip(bounds, [*bounds[1:], start + len(text)], strict=True):
            if done and count(done[-1][0], b) <= size:
                done[-1][1] = b
            elif count(a, b) > size and len(separators) > 1:
                done += split(text[a - start : b - start], a, starts, separators[1:])
            elif a < b:
                done.append([a, b])
        return done

    def cut(corpus: str, text: str) -> Iterator[Piece]:
        starts = tokenizer.offsets(text)[:, 0]
        for start, end in split(text, 0, starts, ["\n\n", "\n", ".", "?", "!", " "]):
            if text[start:end].strip():
                yield Piece(corpus, start, end, text[start:end])

    return cut


def score(found: list[Piece], corpus: str, spans: list[tuple[int, int]]) -> tuple[float, ...]:
    """Recall, precision and IoU for one question."""
    wanted = {i for start, end in spans for i in range(start, end)}
    hit: set[int] = set()
    for piece in found:
        if piece.corpus == corpus:
            hit |= wanted & set(range(piece.start, piece.end))
    total = sum(piece.end - piece.start for piece in found)
    missed = len(wanted) - len(hit)
    return len(hit) / len(wanted), len(hit) / total, len(hit) / (total + missed)


def _spans(row: dict[str, str]) -> list[tuple[int, int]]:
    return [(r["start_index"], r["end_index"]) for r in json.loads(row["references"])]


def _is_answered(row: dict[str, str], texts: dict[str, str]) -> bool:
    length = len(texts.get(row["corpus_id"], ""))
    return all(end <= length for _, end in _spans(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", nargs="*", default=[p.stem for p in DATA.glob("corpora/*.md")])
    parser.add_argument("--size", nargs="*", type=int, default=[])
    parser.add_argument("--overlap", nargs="*", type=int, default=[0])
    parser.add_argument("--characters", type=int, help="read no more than this of each corpus")
    parser.add_argument("--baselines", action="store_true")
    parser.add_argument("--encoder", help="a folder that has been exported; default: exports one")
    arguments = parser.parse_args()
    texts = {c: (DATA / "corpora" / f"{c}.md").read_text() for c in sorted(arguments.corpus)}
    texts = {corpus: text[: arguments.characters] for corpus, text in texts.items()}
    with (DATA / "questions_df.csv").open() as file:
        asked = [row for row in csv.DictReader(file) if _is_answered(row, texts)]
    source = resolve("default")
    config, tokenizer = EncoderConfig.read(source), Tokenizer.load(source)
    methods: dict[str, Method] = {}
    for size in [*arguments.size] or [None]:
        for overlap in arguments.overlap:
            options = ChunkerOptions(size=size, overlap=overlap)
            methods[f"structure {size or 'default'}/{overlap}"] = structured(
                tokenizer, config, options
            )
        if arguments.baselines:
            tokens = size or 200
            methods[f"windows {tokens}/0"] = windows(tokenizer, tokens, 0)
            methods[f"windows {tokens}/{tokens // 2}"] = windows(tokenizer, tokens, tokens // 2)
            methods[f"recursive {tokens}"] = recursive(tokenizer, tokens)
    with tempfile.TemporaryDirectory() as folder:
        encoder = Path(arguments.encoder or f"{folder}/encoder")
        if not arguments.encoder:
            export_encoder(source, encoder, config=config)
        embedder = OnnxEmbedder(encoder)
    queries = embedder.embed_queries([row["question"] for row in asked])
    print(f"{'':24}{'chunks':>8}{'recall':>8}{'precision':>11}{'IoU':>7}")
    for name, method in methods.items():
        pieces = [piece for corpus, text in texts.items() for piece in method(corpus, text)]
        vectors = embedder.embed_passages([piece.text for piece in pieces])
        best = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :DEPTH]
        scores = [
            score(
                [pieces[i] for i in rows],
                row["corpus_id"],
                _spans(row),
            )
            for row, rows in zip(asked, best, strict=True)
        ]
        recall, precision, iou = 100 * np.mean(scores, axis=0)
        print(f"{name:24}{len(pieces):8}{recall:8.1f}{precision:11.1f}{iou:7.1f}", flush=True)


if __name__ == "__main__":
    main()

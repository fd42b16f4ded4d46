"""Calibrates the check of sentences against passages (rag/answering/support.py) on the sample set.

Sentences: the gold answers of eval/sample, written in their own words. A sentence is borne out by
the best passage of a document that its question is judged to need; it is not borne out by the best
passage of any other document (found by the same search, so about the same thing), nor, where it
holds a number, by its own passages once that number is another one. Prints how many of each kind
pass at each pair of thresholds; the numbers rule holds in all of them.

    python tests/bench/support.py --bundle demo-bundle
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eval.datasets import load_sample
from rag.answering.support import Support, SupportOptions
from rag.retrieval.opening import open_retriever
from rag.types import Passage, Query

DEEP = 20  # passages that are looked through
ENOUGH = (0.4, 0.5, 0.6, 0.7)
SOME = (0.1, 0.2, 0.3, 0.4)
NEAR = (0.5, 0.6, 0.7)


class Pair(NamedTuple):
    """One sentence against one passage: its signs, and whether the passage bears it out."""

    kind: str
    lang: str
    share: float
    cosine: float | None
    numbers: bool

    def passes(self, options: SupportOptions) -> bool:
        if not self.numbers or self.share < options.some:
            return False
        near = self.cosine is not None and self.cosine >= options.near
        return self.share >= options.enough or near


def pairs(bundle: str) -> Iterator[Pair]:
    opened = open_retriever(bundle)
    support = Support(opened.bundle.analyzer.words, opened.embedder)
    dataset = load_sample()
    for query_id, text in dataset.queries.items():
        metadata = dataset.metadata[query_id]
        judged = dataset.qrels.get(query_id, {})
        if metadata["answer"] is None:
            continue
        gold = {doc_id for doc_id, grade in judged.items() if grade == max(judged.values())}
        found = opened.retriever.search([Query(text, DEEP)])[0].passages
        own = [p for p in found if p.chunk.doc_id in gold][:2]
        other = [p for p in found if p.chunk.doc_id not in judged][:2]
        said, lang = str(metadata["answer"]), str(metadata["lang"])
        if own:
            yield _pair(support, "borne out", lang, said, own)
            changed = re.sub(r"\d", lambda m: str((int(m.group()) + 3) % 10), said)
            if changed != said:
                yield _pair(support, "other number", lang, changed, own)
        if other:
            yield _pair(support, "other document", lang, said, other)


def _pair(
    support: Support, kind: str, lang: str, sentence: str, passages: Sequence[Passage]
) -> Pair:
    return Pair(kind, lang, *support.signs(sentence, passages))


def table(made: Sequence[Pair]) -> str:
    lines = ["| enough | some | near | borne out | of Korean | other document | other number |"]
    lines.append("|--:|--:|--:|--:|--:|--:|--:|")
    for enough in ENOUGH:
        for some in (some for some in SOME if some < enough):
            for near in NEAR:
                options = SupportOptions(enough, some, near)
                cells = [
                    _share([p for p in made if p.kind == "borne out"], options),
                    _share([p for p in made if p.kind == "borne out" and p.lang == "ko"], options),
                    _share([p for p in made if p.kind == "other document"], options),
                    _share([p for p in made if p.kind == "other number"], options),
                ]
                chosen = " *" if options == SupportOptions() else ""
                lines.append(f"| {enough} | {some} | {near}{chosen} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(made: Sequence[Pair], options: SupportOptions) -> str:
    passed = sum(pair.passes(options) for pair in made)
    return f"{passed}/{len(made)} ({passed / max(1, len(made)):.0%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    print(table(list(pairs(parser.parse_args().bundle))))


if __name__ == "__main__":
    main()

"""Is the score of the default fusion a probability of relevance, also where nothing was fitted?

    python tests/bench/calibration.py --cache FOLDER DIR [DIR …]

Each DIR is a collection in BEIR's layout. Every judged query is asked, and its best TOP passages
are pairs of a score and a judgement (none counts as not relevant). Two kinds of questions without
an answer are asked as well: those of the other collections in the same script (*foreign*), and the
collection's own with all their relevant documents filtered out (*bereft*).

The shipped calibration is fitted to all collections together; *held out* is the same fit to all
but the collection of the line. ECE: the mean gap between score and share of relevant passages over
ten bins of scores. Guo et al., ICML 2017.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression

from eval.collection import Collection, IndexOptions, build_collection
from eval.datasets import Dataset, load_beir
from eval.progress import make_advance
from eval.vectors import LazyEmbedder, VectorCache
from rag.index.analysis.scripts import has_hangul
from rag.retrieval.calibration import ANSWERABLE, Calibration
from rag.retrieval.feedback import CANDIDATES, Asked, Feedback, measure_scale
from rag.types import NO_ROW, Float32

TOP = 10
FOREIGN = 300
"""Questions of other collections, in all."""
BEREFT = 300
KINDS = ("own", "foreign", "bereft")
THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Observed:
    """The best passages of n questions of one kind: `features` float64 (n, TOP, 5), as `fit`
    takes them (0 where there are fewer), `found` and `relevant` bool (n, TOP).
    """

    features: Float64
    found: Bool
    relevant: Bool

    def scores(self, weights: Float64) -> Float64:
        """(n, TOP) probabilities; 0 where there is no passage."""
        return np.where(self.found, 1.0 / (1.0 + np.exp(-(self.features @ weights))), 0.0)


class Probe:
    """One collection that can be asked for the features of what it finds.

    A calibration whose log-odds are one feature gives that feature back.
    """

    def __init__(self, dataset: Dataset, index: Collection, embedder: Any, rows: int) -> None:
        self._index, self._embedder = index, embedder
        self._scale = measure_scale(index, rows)
        self._row = {chunk.doc_id: i for i, chunk in enumerate(index.chunks(np.arange(rows)))}
        self.dataset, self._rows = dataset, rows

    def ask(self, texts: Sequence[str], vectors: Float32, golds: Sequence[Any], kind: str) -> Any:
        shape = (len(texts), TOP)
        seen = Observed(np.zeros((*shape, 5)), np.zeros(shape, bool), np.zeros(shape, bool))
        for line, (text, vector, gold) in enumerate(zip(texts, vectors, golds, strict=True)):
            wanted = {self._row[d] for d, grade in gold.items() if grade > 0 and d in self._row}
            allowed = None
            if kind == "bereft":
                allowed = np.ones(self._rows, dtype=np.bool_)
                allowed[list(wanted)] = False
            self._one(seen, line, text, vector, allowed, wanted)
        return seen

    def _one(
        self, seen: Observed, line: int, text: str, vector: Float32, allowed: Any, wanted: set[int]
    ) -> None:
        vectors = vector[None]
        legs = (
            self._index.search_dense(vectors, CANDIDATES, allowed),
            self._index.search_sparse([text], CANDIDATES, allowed),
        )
        readable = self._embedder.readable([text])
        asked = Asked([text], vectors, readable)
        trust = float(np.clip(2.0 * readable[0] - 1.0, 0.01, 1.0))

        def features(calibration: Calibration) -> dict[int, float]:
            hits = Feedback(calibration=calibration).fuse(legs, asked, self._index, self._scale)
            odds = np.log(hits.scores[0].astype(np.float64) / (1.0 - hits.scores[0]))
            return dict(zip(hits.rows[0].tolist(), odds.tolist(), strict=True))

        part = features(Calibration(1.0, (0.0, 0.0), (0.0, 0.0)))
        apart = features(Calibration(0.0, (0.0, 1.0 / 8.0), (0.0, 0.0)))
        covered = features(Calibration(0.0, (0.0, 0.0), (0.0, 1.0)))
        best = [row for row in part if row != NO_ROW][:TOP]
        for place, row in enumerate(best):
            own = (part[row], trust, 8.0 * apart[row], 1.0 - trust, covered[row])
            seen.features[line, place] = own
            seen.found[line, place] = True
            seen.relevant[line, place] = row in wanted


def weights_of(calibration: Calibration) -> Float64:
    return np.array([calibration.slope, *calibration.by_cosine, *calibration.by_coverage])


def fit(observed: Sequence[dict[str, Observed]]) -> Float64:
    """The calibration's numbers by logistic regression; each collection counts the same, and its
    own questions as much as those without an answer."""
    rows, labels, shares = [], [], []
    for kinds in observed:
        for kind, share in (("own", 0.5), ("foreign", 0.25), ("bereft", 0.25)):
            seen = kinds[kind]
            rows.append(seen.features[seen.found])
            labels.append(seen.relevant[seen.found])
            shares.append(np.full(len(rows[-1]), share / max(len(rows[-1]), 1)))
    total = np.concatenate(shares)
    model = LogisticRegression(C=1e6, fit_intercept=False, max_iter=5000)
    model.fit(np.concatenate(rows), np.concatenate(labels), total / total.mean())
    return np.asarray(model.coef_[0])


def bins(scores: Float64, relevant: Bool) -> list[tuple[int, float, float]]:
    """Per bin of width 0.1: how many, mean score, share of relevant ones."""
    place = np.minimum((scores * 10).astype(int), 9)
    found = [(scores[place == i], relevant[place == i]) for i in range(10)]
    return [
        (len(s), float(s.mean()), float(r.mean())) if len(s) else (0, 0.0, 0.0) for s, r in found
    ]


def ece(scores: Float64, relevant: Bool) -> float:
    return sum(n * abs(s - r) for n, s, r in bins(scores, relevant)) / max(len(scores), 1)


def auc(answered: Float64, unanswered: Float64) -> float:
    """How often an answered question's best score is above an unanswered one's."""
    above = (answered[:, None] > unanswered[None]).mean()
    return float(above + (answered[:, None] == unanswered[None]).mean() / 2)


def observe(folders: Sequence[Path], cache: Path) -> dict[str, dict[str, Observed]]:
    observed = {}
    with tempfile.TemporaryDirectory() as work, make_advance() as advance:
        embedder = LazyEmbedder("default", exports=cache / "encoders")
        vectors = VectorCache(cache / "vectors", embedder.runs_as)
        sets = {folder.name: load_beir(folder) for folder in folders}
        asked = {}
        for name, dataset in sets.items():
            ids = dataset.judged()
            texts = [dataset.queries[q] for q in ids]
            asked[name] = texts, vectors.embed(embedder, "query", texts, advance), ids
        korean = {name: has_hangul(texts[0]) for name, (texts, _, _) in asked.items()}
        for name, dataset in sets.items():
            index = build_collection(
                dataset, Path(work, name), embedder, IndexOptions(),
                vectors=vectors, advance=advance,
            )  # fmt: skip
            probe = Probe(dataset, index, embedder, index.manifest.counts["chunks"])
            texts, embedded, ids = asked[name]
            golds = [dataset.qrels[q] for q in ids]
            few = slice(None, None, max(1, len(ids) // BEREFT))
            others = [o for o in sets if o != name and korean[o] == korean[name]]
            others = others or [o for o in sets if o != name]
            taken = [
                (o, i) for o in others for i in _some(len(asked[o][0]), FOREIGN // len(others))
            ]
            observed[name] = {
                "own": probe.ask(texts[few], embedded[few], golds[few], "own"),
                "bereft": probe.ask(texts[few], embedded[few], golds[few], "bereft"),
                "foreign": probe.ask(
                    [asked[o][0][i] for o, i in taken],
                    np.stack([asked[o][1][i] for o, i in taken]),
                    [{}] * len(taken),
                    "foreign",
                ),
            }
            advance("ask", 1, len(sets))
    return observed


def _some(n: int, count: int) -> list[int]:
    return sorted(set(np.linspace(0, n - 1, min(n, count)).astype(int).tolist()))


def show(observed: dict[str, dict[str, Observed]], console: Console) -> None:
    shipped = weights_of(Calibration())
    fitted = fit(list(observed.values()))
    console.print(
        "shipped", np.round(shipped, 2).tolist(), "fitted to all", np.round(fitted, 2).tolist()
    )
    table = Table(
        box=box.SIMPLE, title="Own questions: the mean score of passages, and how it holds"
    )
    for column in (
        "collection",
        "passages",
        "relevant",
        "mean score",
        "ECE shipped",
        "ECE held out",
    ):
        table.add_column(column, justify="left" if column == "collection" else "right")
    pooled: list[tuple[Float64, Bool]] = []
    abstain = Table(
        box=box.SIMPLE, title=f"Best score: AUC, and shares below {ANSWERABLE}, held out"
    )
    for column in ("collection", "AUC foreign", "AUC bereft", *KINDS):
        abstain.add_column(column, justify="left" if column == "collection" else "right")
    held: dict[str, list[Float64]] = {kind: [] for kind in KINDS}
    for name, kinds in observed.items():
        others = fit([o for n, o in observed.items() if n != name]) if len(observed) > 1 else fitted
        own = kinds["own"]
        scores, out, relevant = own.scores(shipped), own.scores(others), own.relevant
        pooled.append((out[own.found], relevant[own.found]))
        table.add_row(
            name, str(own.found.sum()), f"{relevant[own.found].mean():.3f}",
            f"{scores[own.found].mean():.3f}", f"{ece(scores[own.found], relevant[own.found]):.3f}",
            f"{ece(out[own.found], relevant[own.found]):.3f}",
        )  # fmt: skip
        best = {kind: kinds[kind].scores(others)[:, 0] for kind in KINDS}
        for kind in KINDS:
            held[kind].append(best[kind])
        below = [f"{(best[kind] < ANSWERABLE).mean():.1%}" for kind in KINDS]
        aucs = [f"{auc(best['own'], best[kind]):.3f}" for kind in KINDS[1:]]
        abstain.add_row(name, *aucs, *below)
    console.print(table, abstain)
    _reliability(
        np.concatenate([s for s, _ in pooled]), np.concatenate([r for _, r in pooled]), console
    )
    table = Table(
        box=box.SIMPLE, title="Shares of questions abstained from, mean of collections, held out"
    )
    for column in ("threshold", *KINDS):
        table.add_column(column, justify="right")
    for threshold in THRESHOLDS:
        shares = [np.mean([(b < threshold).mean() for b in held[kind]]) for kind in KINDS]
        table.add_row(f"{threshold:g}", *(f"{share:.1%}" for share in shares))
    console.print(table)


def _reliability(scores: Float64, relevant: Bool, console: Console) -> None:
    table = Table(box=box.SIMPLE, title="Reliability, held out, all collections' own questions")
    for column in ("score", "passages", "mean score", "relevant"):
        table.add_column(column, justify="right")
    for i, (n, mean, share) in enumerate(bins(scores, relevant)):
        table.add_row(f"{i / 10:.1f}–{(i + 1) / 10:.1f}", str(n), f"{mean:.3f}", f"{share:.3f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    show(observe(options.folders, options.cache), Console())


if __name__ == "__main__":
    main()

"""What a command evaluates: a collection, a bundle or a service, made ready and measured."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.datasets import Dataset, load_beir, load_judged, load_sample
from eval.rankers import IndexRanker, Ranker
from eval.run import TIMED, Evaluation, evaluate, parse_modes
from eval.vectors import Advance, LazyEmbedder, VectorCache
from rag.errors import ConfigurationError
from rag.retrieval.fusion import DEFAULT as DEFAULT_FUSION
from rag.retrieval.retriever import DEPTH

if TYPE_CHECKING:
    from eval.answerers import AnswerSource
    from eval.collection import Collection
    from eval.stages import Stages
    from eval.tune import MakeRanker, Tuned
    from rag.index.protocol import Index
    from rag.models.embedder import Embedder

SERVICE_TOP_K = 100
_BM25 = ("method", "k1", "b", "delta", "engine")


@dataclass(frozen=True, slots=True)
class Target:
    """What to evaluate: exactly one of `dataset`, `bundle` and `url`.

    `queries` and `qrels` go with the last two, and default to the sample's. `indexing` (encoder,
    analyzer, dense, and BM25's method, k1, b) is for a dataset, `running` (backend, device,
    precision) for a dataset or a bundle, `headers` for a URL. `depth` is the candidates of each
    leg, or the passages asked of a service. `stages` are what is done beside the search. `cache`
    keeps vectors, encoders and remote bundles.
    """

    dataset: Path | None = None
    bundle: str | None = None
    url: str | None = None
    queries: Path | None = None
    qrels: Path | None = None
    split: str = "test"
    fusion: Mapping[str, Any] | None = None
    depth: int | None = None
    indexing: Mapping[str, Any] = field(default_factory=dict)
    running: Mapping[str, Any] = field(default_factory=dict)
    cache: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stages: Stages | None = None


def evaluate_target(
    target: Target, *, modes: str = "sparse,dense,hybrid", timed: int = TIMED, advance: Advance
) -> Evaluation:
    """Makes the target ready, and evaluates it.

    Raises ConfigurationError for options that do not belong together, EvaluationError,
    BundleError, StorageError.
    """
    _check(target)
    wanted = parse_modes(modes)
    dataset = _dataset(target)
    with tempfile.TemporaryDirectory(prefix="rag-eval-") as work, ExitStack() as stack:
        ranker = _ranker(target, dataset, Path(work), stack, advance)
        return evaluate(dataset, ranker, modes=wanted, timed=timed, advance=advance)


def parse_json_option(name: str, text: str | None) -> Mapping[str, Any] | None:
    """The JSON object given to an option, or None."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{name} is not JSON ({error}); quote it for the shell") from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{name} is {text!r}; give a JSON object")
    return value


def _check(target: Target) -> None:
    named = [target.dataset, target.bundle, target.url]
    if sum(value is not None for value in named) != 1:
        raise ConfigurationError("name what to evaluate: one of --dataset, --bundle and --url")
    if target.dataset is not None and (target.queries or target.qrels):
        raise ConfigurationError("--queries and --qrels go with --bundle or --url, not --dataset")
    if (target.queries is None) != (target.qrels is None):
        raise ConfigurationError("--queries and --qrels belong together; give both or neither")
    if target.dataset is None and target.indexing:
        raise ConfigurationError(
            f"'{next(iter(target.indexing))}' decides how a --dataset is indexed; a bundle or a"
            " service has its own"
        )
    if target.url is not None and target.running:
        raise ConfigurationError(
            f"'{next(iter(target.running))}' is for encoders that run here; a service has its own"
        )
    if target.url is None and target.headers:
        raise ConfigurationError("--header goes with --url")
    if target.stages is not None:
        target.stages.check(of_service=target.url is not None)
    if target.depth is not None and target.depth < 1:
        raise ConfigurationError(f"--depth is {target.depth}; use 1 or more")


def _dataset(target: Target) -> Dataset:
    if target.dataset is not None:
        return load_beir(target.dataset, split=target.split)
    if target.queries is None or target.qrels is None:
        return load_sample()
    return load_judged(target.queries.stem, target.queries, target.qrels, split=target.qrels.stem)


def _ranker(
    target: Target, dataset: Dataset, work: Path, stack: ExitStack, advance: Advance
) -> Ranker:
    if target.url is not None:
        from eval.service_ranker import ServiceRanker

        return ServiceRanker(
            target.url,
            top_k=target.depth or SERVICE_TOP_K,
            fusion=target.fusion,
            fields=target.stages.request_fields() if target.stages else None,
            headers=target.headers,
        )
    if target.bundle is not None:
        from rag.retrieval.opening import open_retriever

        cache = target.cache / "bundles" if target.cache else work / "bundles"
        opened = open_retriever(target.bundle, cache_dir=cache, **target.running)
        return _index_ranker(target, stack, opened.bundle, opened.embedder, None)
    index, embedder, vectors = _collection(target, dataset, work, advance)
    return _index_ranker(target, stack, index, embedder, vectors)


def _index_ranker(
    target: Target, stack: ExitStack, index: Index, embedder: Embedder, vectors: VectorCache | None
) -> Ranker:
    plain = IndexRanker(
        index, embedder, fusion=target.fusion, depth=target.depth or DEPTH, vectors=vectors
    )
    if target.stages is None:
        return plain
    from eval.stages import StagedRanker
    from rag.retrieval.retriever import Retriever

    staged = StagedRanker(
        Retriever(index, embedder),
        target.stages,
        plain.system,
        fusion=target.fusion,
        top_k=target.depth or SERVICE_TOP_K,
    )
    return stack.enter_context(closing(staged))


def _collection(
    target: Target, dataset: Dataset, work: Path, advance: Advance
) -> tuple[Collection, LazyEmbedder, VectorCache]:
    from eval.collection import IndexOptions, build_collection

    options = dict(target.indexing)
    cache = target.cache or work
    embedder = LazyEmbedder(
        options.pop("encoder", "default"), exports=cache / "encoders", **target.running
    )
    vectors = VectorCache(cache / "vectors", embedder.runs_as)
    index = build_collection(
        dataset,
        work / "index",
        embedder,
        IndexOptions(
            analyzer=options.pop("analyzer", "auto"),
            dense={"kind": options.pop("dense", "flat")},
            sparse={name: options.pop(name) for name in _BM25 if name in options},
            fusion=dict(target.fusion or DEFAULT_FUSION),
        ),
        vectors=vectors,
        advance=advance,
    )
    return index, embedder, vectors


def tune_target(
    target: Target, *, seed: int, share: float = 0.5, advance: Advance = lambda *_: None
) -> Tuned:
    """Makes a collection or a bundle ready, and fits its fusion (see eval/tune.py).

    What it is compared with is the fusion sealed in the bundle, or the default. Raises as
    `evaluate_target` does.
    """
    from eval.tune import tune

    _check(target)
    if target.url is not None:
        raise ConfigurationError("fusion is fitted on a --dataset or a --bundle, not on a service")
    dataset = _dataset(target)
    with tempfile.TemporaryDirectory(prefix="rag-eval-") as work:
        make_ranker, baseline = _fusions(target, dataset, Path(work), advance)
        return tune(dataset, make_ranker, baseline, seed=seed, share=share, advance=advance)


def _fusions(
    target: Target, dataset: Dataset, work: Path, advance: Advance
) -> tuple[MakeRanker, Mapping[str, Any]]:
    """The system with any fusion, and the fusion that it has."""
    depth = target.depth or DEPTH
    if target.bundle is None:
        index, embedder, vectors = _collection(target, dataset, work, advance)
        return (
            lambda fusion: IndexRanker(
                index, embedder, fusion=fusion, depth=depth, vectors=vectors
            ),
            index.manifest.fusion,
        )
    from rag.retrieval.opening import open_retriever

    cache = target.cache / "bundles" if target.cache else work / "bundles"
    opened = open_retriever(target.bundle, cache_dir=cache, **target.running)
    # Every fusion asks the same queries: they are embedded once.
    kept = VectorCache(work / "vectors", opened.bundle.manifest.version)
    return (
        lambda fusion: IndexRanker(
            opened.bundle, opened.embedder, fusion=fusion, depth=depth, vectors=kept
        ),
        opened.bundle.manifest.fusion or DEFAULT_FUSION,
    )


def question_set(questions: Path | None, qrels: Path | None) -> Dataset:
    """The questions of `rag-eval answers`, with their judgements if there are any: those named, or
    `qrels/test.tsv` beside the questions. Without `questions`, the sample.
    """
    if questions is None:
        if qrels is not None:
            raise ConfigurationError("--qrels goes with --questions; name both")
        return load_sample()
    beside = questions.parent / "qrels" / "test.tsv"
    if qrels is None and beside.is_file():
        qrels = beside
    return load_judged(questions.stem, questions, qrels)


def answer_source(
    bundle: str | None,
    url: str | None,
    *,
    top_k: int,
    endpoint: tuple[str | None, str | None, str | None],
    headers: Mapping[str, str],
) -> AnswerSource:
    """Who answers: exactly one of `bundle` and `url`. `endpoint` (URL, model, key) answers for a
    bundle, `headers` go to a URL.
    """
    from eval.answerers import BundleAnswers, GeneratorEndpoint, ServiceAnswers

    if (bundle is None) == (url is None):
        raise ConfigurationError("name who answers: one of --bundle and --url")
    generator_url, model, api_key = endpoint
    if url is not None:
        if generator_url is not None:
            raise ConfigurationError("--generator-url goes with --bundle; a service has its own")
        return ServiceAnswers(url, top_k=top_k, headers=headers)
    if headers:
        raise ConfigurationError("--header goes with --url")
    generator = None
    if generator_url is not None and model is not None:
        generator = GeneratorEndpoint(generator_url, model, api_key)
    return BundleAnswers(bundle or "", top_k=top_k, endpoint=generator)

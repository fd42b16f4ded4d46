"""Making engines: what belongs to one generation is new, what all may share is made once."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rag.answering.answer import Answerer, Unsupported
from rag.answering.prompt import CountTokens
from rag.answering.support import Support
from rag.answering.templates import TEMPLATES, PromptTemplate
from rag.devices import CPU
from rag.index.bundle import Bundle, open_bundle
from rag.index.dense.gpu_plan import Search
from rag.models.embedder import Budgeted, Embedder
from rag.models.generator import Generator
from rag.models.load import Backend
from rag.models.load_generator import GeneratorSpec, load_generator
from rag.models.load_reranker import RerankerSpec, load_reranker
from rag.models.threads import usable_cpus
from rag.retrieval.opening import load_proven, place_dense, warm
from rag.retrieval.searcher import Searcher
from rag.service.encoding import WORKERS, EncoderPool, EncoderStage
from rag.service.engine import Done, Engine
from rag.service.expanding import Expander
from rag.service.metrics import Metrics
from rag.service.reranking import Reranking
from rag.service.tracing import Tracing
from rag.service.vector_cache import VectorCache

logger = logging.getLogger(__name__)

CPU_BATCH_TOKENS = 8_192


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How every engine of a service is made; see the settings of the same names."""

    generator: GeneratorSpec
    reranker: RerankerSpec | None
    cache_dir: Path | None = None
    backend: Backend = "onnx"
    device: str = "auto"
    dense_device: str = "auto"
    dense_search: Search = "auto"
    precision: str = "float32"
    speedup: str = "none"
    threads: int | None = None
    context_tokens: int = 8192
    reranker_depth: int = 50
    max_top_k: int = 100
    queue_max_items: int = 1024
    batch_max_tokens: int | None = None
    query_cache_bytes: int = 0
    stalled_after_s: float = 120.0
    reserve_s: float = 2.0
    template: str = "default"
    templates: Mapping[str, PromptTemplate] = field(default_factory=lambda: TEMPLATES)
    template_choices: tuple[str, ...] = ()
    count_tokens: CountTokens | None = None
    unsupported: Unsupported = "flag"
    abstain_below: float | None = None


class EngineMaker:
    """Loads bundles into engines that share encoders of one digest, the cache of query vectors,
    the generator's endpoint with its circuit breaker, and the reranker.
    """

    def __init__(
        self, options: EngineOptions, metrics: Metrics, tracing: Tracing | None = None
    ) -> None:
        self._options = options
        self._metrics = metrics
        self._tracing = tracing or Tracing()
        self._cache = VectorCache(options.query_cache_bytes)
        self._encoders = EncoderPool(self._start, self._cache)
        self._lock = threading.Lock()
        self._reranking: Reranking | None = None
        self._endpoint: Generator | None = None
        metrics.watch_cache(self._cache)

    def load(self, uri: str, version: str | None = None, bundle: str = "") -> Engine:
        """Everything that answers from the bundle at `uri`: verified, encoder proven, first search
        made. `version` is one of a root's, `bundle` its name in metrics.

        Blocks for seconds, on a thread without an event loop. Raises BundleError, StorageError,
        ConfigurationError.
        """
        options = self._options
        opened = open_bundle(uri, version=version, cache_dir=options.cache_dir)
        # Several searches run at once: a thread for each costs less than all threads for each.
        opened.dense = opened.dense.with_threads(max(1, usable_cpus() // WORKERS))
        place_dense(opened, options.dense_device, options.dense_search)
        searcher = Searcher(opened)
        warm(searcher, opened.manifest.dense["dimension"])
        reranking = self._shared_reranking()
        prove = partial(
            load_proven,
            opened,
            backend=options.backend,
            device=options.device,
            precision=options.precision,
            threads=options.threads,
            speedup=options.speedup,
            on_halved=self._metrics.halved,
        )
        endpoint = self._shared_endpoint()
        encoder = self._encoders.take(opened.manifest.encoder["digest"], prove)
        try:
            return self._assemble(opened, searcher, encoder, endpoint, reranking, bundle)
        except BaseException:  # the hold on an encoder that others may share
            asyncio.run(self._encoders.give_back(encoder))
            raise

    def forget_queries(self) -> None:
        """Empties the cache of query vectors."""
        self._cache.clear()

    async def close(self) -> bool:
        """Closes what engines shared, after them; True when no thread is left inside a library."""
        if self._endpoint is not None:
            await self._endpoint.aclose()
        return self._reranking is None or await self._reranking.close()

    def _assemble(
        self,
        opened: Bundle,
        searcher: Searcher,
        encoder: EncoderStage,
        endpoint: Generator | None,
        reranking: Reranking | None,
        bundle: str,
    ) -> Engine:
        options = self._options
        generator = endpoint or self._extractive(opened, encoder.embedder)
        answerer = Answerer(
            generator,
            support=Support(opened.analyzer.words, encoder.embedder),
            template=options.template,
            templates=options.templates,
            allowed=options.template_choices,
            max_context_tokens=options.context_tokens,
            count_tokens=options.count_tokens,
            unsupported=options.unsupported,
            abstain_below=options.abstain_below,
        )
        return Engine(
            searcher,
            encoder,
            answerer,
            version=opened.manifest.version,
            generator=generator,
            queue_max_items=options.queue_max_items,
            give_back=self._encoders.give_back,
            expander=Expander(endpoint, max_top_k=options.max_top_k),
            reranking=reranking,
            owns_models=False,
            stalled_after_s=options.stalled_after_s,
            reserve_s=options.reserve_s,
            observe_search=self._metrics.searched,
            observe_done=self._observer(bundle),
        )

    def _observer(self, bundle: str) -> Callable[[Done], None]:
        def observe(done: Done) -> None:
            self._metrics.done(done, bundle)
            self._tracing.stages(done)

        return observe

    def _start(self, embedder: Embedder, cache: VectorCache) -> EncoderStage:
        options = self._options
        return EncoderStage(
            embedder,
            cache=cache,
            batch_max_tokens=options.batch_max_tokens or _batch_tokens(embedder),
            max_waiting=options.queue_max_items,
            stalled_after_s=options.stalled_after_s,
            observe=self._metrics.encoded,
        )

    def _extractive(self, bundle: Bundle, embedder: Embedder) -> Generator:
        return load_generator(
            self._options.generator, terms=bundle.analyzer.words, embedder=embedder
        )

    def _shared_endpoint(self) -> Generator | None:
        """The endpoint that answers, with its circuit breaker; None where there is none."""
        spec = self._options.generator
        if spec.kind == "extractive":
            return None
        with self._lock:
            if self._endpoint is None:
                self._endpoint = load_generator(spec, observe_breaker=self._metrics.breaker)
            return self._endpoint

    def _shared_reranking(self) -> Reranking | None:
        """What reranks, if anything; a model of this process has then read its first pair."""
        spec, options = self._options.reranker, self._options
        with self._lock:
            if spec is None or self._reranking is not None:
                return self._reranking
            reranker = load_reranker(spec)
            if spec.backend != "remote":
                reranker.score("a", ["b"])
            self._reranking = Reranking(
                reranker,
                depth=options.reranker_depth,
                max_waiting=options.queue_max_items,
                stalled_after_s=options.stalled_after_s,
            )
            return self._reranking


def _batch_tokens(embedder: Embedder) -> int:
    """What the encoder's device takes at once; on a CPU more would only make callers wait."""
    if isinstance(embedder, Budgeted) and embedder.device != CPU:
        return embedder.max_batch_tokens
    return CPU_BATCH_TOKENS

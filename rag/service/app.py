"""The composition root: settings in, a server out. The port is bound first, the bundle loads in
the background, and SIGTERM drains.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import threading
import time
from functools import partial

from rag.answering.answer import Answerer
from rag.answering.support import Support
from rag.answering.templates import load_templates
from rag.devices import CPU
from rag.errors import RagError
from rag.index.bundle import Bundle, open_bundle
from rag.models.embedder import Budgeted, Embedder
from rag.models.generator import Generator
from rag.models.load_generator import GeneratorSpec, load_generator, read_options
from rag.models.load_reranker import RerankerSpec, load_reranker
from rag.models.token_counting import load_token_counter
from rag.retrieval.calibration import ANSWERABLE
from rag.retrieval.opening import load_proven, place_dense, warm
from rag.retrieval.searcher import Searcher
from rag.service.access import Access
from rag.service.encoding import EncoderPool, EncoderStage
from rag.service.engine import Done, Engine
from rag.service.expanding import Expander
from rag.service.http_server import Server, listen, new_event_loop
from rag.service.metrics import Metrics
from rag.service.reranking import Reranking
from rag.service.routes import create_app
from rag.service.schemas import Limits
from rag.service.state import Service
from rag.service.tracing import Tracing
from rag.service.vector_cache import VectorCache
from rag.settings import Settings

logger = logging.getLogger(__name__)

CPU_BATCH_TOKENS = 8_192
LINGER_S = 1
"""For an answer's thread to end once nobody waits for it."""


def limits_of(settings: Settings) -> Limits:
    """What one request may ask for."""
    return Limits(
        default_deadline_ms=settings.default_deadline_ms,
        max_deadline_ms=settings.max_deadline_ms,
        max_payload_bytes=settings.max_payload_bytes,
        max_query_chars=settings.max_query_chars,
        max_top_k=settings.max_top_k,
        max_generation_tokens=settings.max_generation_tokens,
        max_records=settings.max_records,
        record_concurrency=settings.record_concurrency,
        deadline_per_record=settings.batch_transform,
    )


def access_of(settings: Settings) -> Access:
    """Who may ask; raises ConfigurationError for keys that cannot be read."""
    keys = settings.api_keys
    return Access(None if keys is None else keys.get_secret_value(), settings.api_keys_file)


def make_encoders(settings: Settings, metrics: Metrics) -> EncoderPool:
    """Where the engines of this process find their query encoders."""

    def start(embedder: Embedder, cache: VectorCache) -> EncoderStage:
        return EncoderStage(
            embedder,
            cache=cache,
            batch_max_tokens=settings.batch_max_tokens or _batch_tokens(embedder),
            max_waiting=settings.queue_max_items,
            stalled_after_s=settings.batch_stalled_after_s,
            observe=metrics.encoded,
        )

    cache = VectorCache(settings.query_cache_bytes)
    metrics.watch_cache(cache)
    return EncoderPool(start, cache)


def _batch_tokens(embedder: Embedder) -> int:
    """What the encoder's device takes at once; on a CPU more would only make callers wait."""
    if isinstance(embedder, Budgeted) and embedder.device != CPU:
        return embedder.max_batch_tokens
    return CPU_BATCH_TOKENS


def load_engine(
    settings: Settings, metrics: Metrics, encoders: EncoderPool, tracing: Tracing
) -> Engine:
    """Everything that answers: bundle verified, encoder proven, first search made.

    Blocks for seconds. Raises BundleError, StorageError, ConfigurationError.
    """
    bundle = open_bundle(settings.bundle, cache_dir=settings.cache_dir)
    reserved = place_dense(
        bundle, settings.dense_device or settings.device, settings.dense_gpu_search
    )
    searcher = Searcher(bundle)
    warm(searcher, bundle.manifest.dense["dimension"])
    reranking = _reranking(settings)
    load = partial(
        load_proven,
        bundle,
        backend=settings.encoder_backend,
        device=settings.device,
        precision=settings.encoder_precision,
        threads=settings.encoder_threads,
        speedup=settings.encoder_speedup,
        reserved_bytes=reserved,
        on_halved=metrics.halved,
    )
    encoder = encoders.take(bundle.manifest.encoder["digest"], load)
    generator = _generator(settings, bundle, encoder.embedder, metrics)
    tokenizer = settings.generator_tokenizer
    answerer = Answerer(
        generator,
        support=Support(bundle.analyzer.terms, encoder.embedder),
        template=settings.prompt_template,
        templates=load_templates(settings.prompt_templates),
        allowed=[name.strip() for name in settings.prompt_choices.split(",") if name.strip()],
        max_context_tokens=settings.generator_context_tokens,
        count_tokens=None if tokenizer is None else load_token_counter(tokenizer),
        unsupported=settings.unsupported,
        abstain_below=ANSWERABLE if settings.abstain_below is None else settings.abstain_below,
    )
    version = bundle.manifest.version
    metrics.index(version)

    def done(event: Done) -> None:
        metrics.done(event)
        tracing.stages(event)

    return Engine(
        searcher,
        encoder,
        answerer,
        version=version,
        generator=generator,
        queue_max_items=settings.queue_max_items,
        give_back=encoders.give_back,
        expander=Expander(
            None if settings.generator == "extractive" else generator, max_top_k=settings.max_top_k
        ),
        reranking=reranking,
        stalled_after_s=settings.batch_stalled_after_s,
        reserve_s=settings.generation_reserve_ms / 1e3,
        observe_search=metrics.searched,
        observe_done=done,
    )


def _generator(
    settings: Settings, bundle: Bundle, embedder: Embedder, metrics: Metrics
) -> Generator:
    spec = GeneratorSpec(
        settings.generator,
        url=settings.generator_url,
        model=settings.generator_model,
        api_key=settings.generator_key(),
        endpoint=settings.generator_endpoint,
        dialect=settings.generator_dialect,
        component=settings.generator_component,
        region=settings.generator_region,
        streams=settings.generator_streams,
        chat_model=settings.generator_chat_model,
        options=read_options(settings.generator_options, "RAG_GENERATOR_OPTIONS"),
        attempts=settings.generator_attempts,
        first_token_s=settings.generator_first_token_s,
        breaker_threshold=settings.generator_breaker_failures,
        breaker_open_s=settings.generator_breaker_open_s,
    )
    return load_generator(
        spec,
        terms=bundle.analyzer.terms,
        embedder=embedder,
        observe_breaker=metrics.breaker,
    )


def _reranking(settings: Settings) -> Reranking | None:
    """What reranks, if anything; a model of this process has then read its first pair."""
    if settings.reranker == "none":
        return None
    spec = RerankerSpec(
        settings.reranker,
        path=settings.reranker_path,
        device=settings.reranker_device,
        dtype=settings.reranker_precision,
        threads=settings.encoder_threads,
        url=settings.reranker_url,
        dialect=settings.reranker_dialect,
        model=settings.reranker_model,
        api_key=settings.reranker_key(),
    )
    reranker = load_reranker(spec)
    if settings.reranker != "remote":
        reranker.score("a", ["b"])
    return Reranking(
        reranker,
        depth=settings.reranker_depth,
        max_waiting=settings.queue_max_items,
        stalled_after_s=settings.batch_stalled_after_s,
    )


def serve(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT; the exit code: 0 after a drain, 1 if nothing can be served.

    Raises ConfigurationError when the port cannot be had.
    """
    listener = listen(settings.host, settings.port)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_serve(settings, listener))


async def _serve(settings: Settings, listener: socket.socket) -> int:
    gc.freeze()  # of the libraries nothing will ever be garbage
    metrics = Metrics()
    service = Service(
        limits_of(settings), max_in_flight=settings.max_in_flight, access=access_of(settings)
    )
    tracing = Tracing(settings.traces_url, ratio=settings.traces_ratio)
    metrics.watch(service)
    server = Server(create_app(service, metrics, tracing=tracing, logged=settings.log_requests))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    serving.add_done_callback(lambda _: stop.set())
    logger.info("listening on %s:%d", *listener.getsockname()[:2])
    loader = _Loader(settings, metrics, make_encoders(settings, metrics), tracing, service, stop)
    loader.start()
    await stop.wait()
    logger.info("stopping: %d requests in flight", service.in_flight)
    await service.drain(settings.drain_timeout_s)
    server.should_exit = True
    await serving
    clean = not loader.is_alive()
    clean = await service.close() and clean
    await asyncio.to_thread(tracing.flush)
    logger.info("stopped")
    return _end(loader.exit_code, clean=clean)


class _Loader(threading.Thread):
    """Loads the engine beside the event loop, so that /ping answers meanwhile.

    A daemon thread: a stop does not wait for it. `exit_code` is 1 when loading has failed.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        encoders: EncoderPool,
        tracing: Tracing,
        service: Service,
        stop: asyncio.Event,
    ) -> None:
        super().__init__(name="loader", daemon=True)
        self.exit_code = 0
        self._settings = settings
        self._metrics = metrics
        self._encoders = encoders
        self._tracing = tracing
        self._service = service
        self._stopping = stop
        self._loop = asyncio.get_running_loop()

    def run(self) -> None:
        began = time.monotonic()
        try:
            engine = load_engine(self._settings, self._metrics, self._encoders, self._tracing)
        except RagError as error:
            logger.critical("cannot serve %s: %s", self._settings.bundle, error)
        except Exception:
            logger.critical("cannot serve %s", self._settings.bundle, exc_info=True)
        else:
            took_s = round(time.monotonic() - began, 3)
            fields = {"index_version": engine.version, "took_s": took_s}
            logger.info("ready to serve %s", self._settings.bundle, extra=fields)
            self._loop.call_soon_threadsafe(self._service.begin, engine)
            return
        self._loop.call_soon_threadsafe(self._failed)

    def _failed(self) -> None:
        self._service.fail()
        if self._settings.exit_on_load_failure:
            self.exit_code = 1
            self._stopping.set()


def _end(code: int, *, clean: bool) -> int:
    """`code`; but a thread that is still inside a library must not hold the exit, or crash while
    the interpreter is torn down: then the process ends without that.
    """
    if not clean:
        logging.shutdown()
        os._exit(code)
    guard = threading.Timer(LINGER_S, os._exit, (code,))
    guard.daemon = True
    guard.start()
    return code

"""The composition root: settings in, a server out. The port is bound first, the bundle loads in
the background, follows its root where it has one, and SIGTERM drains.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from functools import partial

from rag.answering.templates import load_templates
from rag.errors import RagError
from rag.models.load_generator import GeneratorSpec, read_options
from rag.models.load_reranker import RerankerSpec
from rag.models.token_counting import load_token_counter
from rag.retrieval.calibration import ANSWERABLE
from rag.service import memory
from rag.service.access import Access
from rag.service.background import Background
from rag.service.bundles import Bundles
from rag.service.engines import EngineMaker, EngineOptions
from rag.service.following import Copies, Follower
from rag.service.http_server import Server, listen, new_event_loop
from rag.service.metrics import Metrics
from rag.service.models import Models
from rag.service.process import end, run_until
from rag.service.refusing import Refusals
from rag.service.routes import create_app
from rag.service.schemas import Limits
from rag.service.state import Service
from rag.service.tracing import Tracing
from rag.settings import Settings
from rag.storage import is_remote

logger = logging.getLogger(__name__)


def limits_of(settings: Settings) -> Limits:
    """What one request may ask for."""
    return Limits(
        default_deadline_ms=settings.default_deadline_ms,
        max_deadline_ms=settings.max_deadline_ms,
        max_payload_bytes=settings.max_payload_bytes,
        max_query_chars=settings.max_query_chars,
        max_top_k=settings.max_top_k,
        max_generation_tokens=settings.max_generation_tokens,
        max_records=None if settings.batch_transform else settings.max_records,
        max_lines_bytes=settings.batch_max_payload_bytes if settings.batch_transform else None,
        record_concurrency=settings.record_concurrency,
        deadline_per_record=settings.batch_transform,
    )


def access_of(settings: Settings) -> Access:
    """Who may ask; raises ConfigurationError for keys that cannot be read."""
    keys = settings.api_keys
    return Access(None if keys is None else keys.get_secret_value(), settings.api_keys_file)


def options_of(settings: Settings) -> EngineOptions:
    """How engines are made; raises ConfigurationError for keys and options that cannot be read."""
    tokenizer = settings.generator_tokenizer
    threshold = settings.abstain_below
    return EngineOptions(
        generator=_generator_spec(settings),
        reranker=_reranker_spec(settings),
        cache_dir=settings.cache_dir,
        backend=settings.encoder_backend,
        device=settings.device,
        speedup=settings.encoder_speedup,
        dense_device=settings.dense_device or settings.device,
        dense_search=settings.dense_gpu_search,
        template=settings.prompt_template,
        templates=load_templates(settings.prompt_templates),
        template_choices=tuple(n.strip() for n in settings.prompt_choices.split(",") if n.strip()),
        count_tokens=None if tokenizer is None else load_token_counter(tokenizer),
        unsupported=settings.unsupported,
        abstain_below=ANSWERABLE if threshold is None else threshold,
        reserve_s=settings.generation_reserve_ms / 1e3,
        precision=settings.encoder_precision,
        threads=settings.encoder_threads,
        context_tokens=settings.generator_context_tokens,
        reranker_depth=settings.reranker_depth,
        max_top_k=settings.max_top_k,
        queue_max_items=settings.queue_max_items,
        batch_max_tokens=settings.batch_max_tokens,
        query_cache_bytes=settings.query_cache_bytes,
        stalled_after_s=settings.batch_stalled_after_s,
    )


def _generator_spec(settings: Settings) -> GeneratorSpec:
    return GeneratorSpec(
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


def _reranker_spec(settings: Settings) -> RerankerSpec | None:
    if settings.reranker == "none":
        return None
    return RerankerSpec(
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


def serve(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT; the exit code: 0 after a drain, 1 if nothing can be served.

    Raises ConfigurationError when the port cannot be had, or a setting cannot be used.
    """
    listener = listen(settings.host, settings.port)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_serve(settings, listener))


async def _serve(settings: Settings, listener: socket.socket) -> int:
    memory.spare_collector()
    metrics = Metrics()
    tracing = Tracing(settings.traces_url, ratio=settings.traces_ratio)
    service = Service(
        limits_of(settings),
        max_in_flight=settings.max_in_flight,
        access=access_of(settings),
        multi_model=settings.multi_model,
    )
    metrics.watch(service)
    maker = EngineMaker(options_of(settings), metrics, tracing)
    background = Background()
    bundles = Bundles(service, maker, background, metrics)
    refusals = Refusals(service, metrics)
    app = create_app(
        service,
        metrics,
        tracing=tracing,
        logged=settings.log_requests,
        models=_models(settings, bundles) if settings.multi_model else None,
        keyless_models=settings.models_keyless,
        refusals=refusals,
    )
    stop = asyncio.Event()
    follower = Follower(
        settings.bundle,
        bundles.replace,
        background,
        metrics,
        interval_s=settings.follow_interval_s,
        copies=Copies(settings.cache_dir if is_remote(settings.bundle) else None),
    )
    life = asyncio.create_task(_live(settings, service, follower, stop))
    collecting = asyncio.create_task(memory.collect_regularly())
    drain = partial(service.drain, settings.drain_timeout_s)
    await run_until(stop, Server(app, refusals), listener, drain)
    code = life.result() if life.done() else 0
    life.cancel()
    collecting.cancel()
    clean = not background.busy
    clean = await service.close() and clean
    clean = await maker.close() and clean
    await background.run("flush", tracing.flush)
    logger.info("stopped")
    return end(code, clean=clean)


def _models(settings: Settings, bundles: Bundles) -> Models:
    limit = settings.models_memory_bytes or memory.usable_bytes()
    return Models(
        bundles,
        memory.Ledger(limit),
        settings.models_dir,
        encoder=(settings.encoder_backend, settings.encoder_precision),
    )


async def _live(
    settings: Settings, service: Service, follower: Follower, stop: asyncio.Event
) -> int:
    """Loads the bundle, and follows its root for ever, where there is one; else the exit code."""
    if settings.multi_model:
        service.ready()
        return 0
    began = time.monotonic()
    try:
        version = await follower.begin(settings.bundle_version)
    except Exception as error:  # of whatever kind: it is told, and nothing is served
        unknown = None if isinstance(error, RagError) else error
        logger.critical("cannot serve %s: %s", settings.bundle, error, exc_info=unknown)
        service.fail()
        if settings.exit_on_load_failure:
            stop.set()
            return 1
    else:
        extra = {"index_version": version, "took_s": round(time.monotonic() - began, 3)}
        logger.info("ready to serve %s", settings.bundle, extra=extra)
    await follower.run()
    return 0

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest

from rag.errors import InvalidRequest
from rag.models.load_generator import GeneratorSpec
from rag.models.onnx_embedder import OnnxEmbedder
from rag.service.engines import EngineMaker, EngineOptions
from rag.service.metrics import Metrics


def encoders() -> int:
    gc.collect()
    return sum(isinstance(found, OnnxEmbedder) for found in gc.get_objects())


def encoder_threads() -> int:
    return sum(thread.name.startswith("encoder") for thread in threading.enumerate())


def test_an_engine_that_cannot_be_made_keeps_no_encoder(sample_bundle: Path) -> None:
    before, threads = encoders(), encoder_threads()
    options = EngineOptions(GeneratorSpec("extractive"), None, template="not-there")
    maker = EngineMaker(options, Metrics())
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="not-there"):
            maker.load(str(sample_bundle))
        assert (encoders(), encoder_threads()) == (before, threads)

"""Options of builds that take a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.build import BuildOptions
from indexer.pipeline.workers import Limits


@pytest.fixture
def tiny_options(tiny_encoder: Path, encoder_cache: Path) -> BuildOptions:
    """Options of a build that takes a second."""
    return BuildOptions(
        encoder=str(tiny_encoder), encoder_cache=encoder_cache, limits=Limits(processes=2)
    )

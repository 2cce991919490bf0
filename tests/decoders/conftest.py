"""A tiny random diffusion model, started once for all strategies that need a canvas."""

from collections.abc import AsyncIterator

import pytest

from engines.diffusion.engine import DiffusionEngine
from tests.fakes import canvases


@pytest.fixture(scope="session")
async def canvas(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DiffusionEngine]:
    ready = await canvases.started(canvases.llada(tmp_path_factory.mktemp("canvas")))
    yield ready
    await ready.stop()

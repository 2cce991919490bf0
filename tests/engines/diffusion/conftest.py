"""Engines over tiny random checkpoints, started once."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engines.diffusion.engine import DiffusionEngine
from tests.fakes import canvases


@pytest.fixture(scope="session")
def llada_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return canvases.llada(tmp_path_factory.mktemp("llada"))


@pytest.fixture(scope="session")
def dream_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return canvases.dream(tmp_path_factory.mktemp("dream"))


@pytest.fixture(scope="session")
async def llada(llada_folder: Path) -> AsyncIterator[DiffusionEngine]:
    engine = await canvases.started(llada_folder)
    yield engine
    await engine.stop()


@pytest.fixture(scope="session")
async def dream(dream_folder: Path) -> AsyncIterator[DiffusionEngine]:
    engine = await canvases.started(dream_folder)
    yield engine
    await engine.stop()

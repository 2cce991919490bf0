"""What all tests share: logs as a server has them, seeded examples, one ensemble of policies.

The server's logs go to stderr, as they do when it is started. An ensemble is asked for in several
folders, so it is made here and loaded once.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings

from engines.base import Engine
from engines.registry import build
from server import logs
from tests.policies import ensemble_spec, make_policies

logs.configure("warning", format="json")
# The same examples in every run, and none fails for being slow on a busy machine.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The members' checkpoints on disk."""
    return make_policies(tmp_path_factory.mktemp("policies"))


@pytest.fixture(scope="session")
async def ensemble(policies: Path) -> AsyncIterator[Engine]:
    """They in one vLLM engine."""
    made = build("ensemble", ensemble_spec("ensemble", policies))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(scope="session")
async def reference_ensemble(policies: Path) -> AsyncIterator[Engine]:
    """They in the slow engine that shows each step."""
    made = build("reference_ensemble", ensemble_spec("reference_ensemble", policies))
    await made.start()
    yield made
    await made.stop()

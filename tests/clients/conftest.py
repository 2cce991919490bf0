"""A real server over a table engine for the clients to talk to."""

from collections.abc import AsyncIterator

import pytest

from tests.server.api.live import Live, running, settings


@pytest.fixture(scope="package")
async def live() -> AsyncIterator[Live]:
    async with running(settings()) as server:
        yield server

"""One running server for all tests of the API that need nothing special."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.server.api.live import Live, running, settings


@pytest_asyncio.fixture(scope="session")
async def live() -> AsyncIterator[Live]:
    async with running(settings()) as started:
        yield started

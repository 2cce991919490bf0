"""Plain decoding: what the model says, token by token. The measure of every other strategy."""

from collections.abc import AsyncGenerator

from decoders.core.base import Commit, Field, Options, decoder
from decoders.core.run import Run


class PlainOptions(Options):
    """Plain decoding has no parameters."""


@decoder("plain", PlainOptions, source="the model itself", honours=set(Field))
async def plain(run: Run, options: PlainOptions) -> AsyncGenerator[Commit, None]:
    """The model's own answer, as sampled."""
    async for delta in run.generate():
        yield Commit.of(delta)

"""A sequence that a vLLM engine keeps at hand: sample, look, put tokens in, go on.

The KV cache stays between takes, so a step costs no restart. A take that is closed early, or a
session left idle, gives the engine's request up; the next take begins a new one from the prefix
cache, which only shows in the time it takes (and in the draws of a seeded session, whose random
numbers begin again). It does not know requests, strategies or monitors.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from vllm import SamplingParams
from vllm.engine.protocol import StreamingInput
from vllm.inputs.engine import tokens_input

from engines.base import Delta, Engine, EngineError, Sampling, UnsupportedError
from engines.checks import check_generate, check_room
from engines.vllm.faults import sorted_faults
from engines.vllm.params import delta_of, translated

IDLE_SECONDS = 30.0

Inputs = AsyncGenerator[StreamingInput, None]
Open = Callable[[Inputs, SamplingParams], AsyncGenerator[Any, None]]


class Session:
    """One sequence under way; one take at a time. Made by `VllmEngine.session`."""

    def __init__(
        self,
        engine: Engine,
        open_request: Open,
        prefix: Sequence[int],
        sampling: Sampling,
        idle: float = IDLE_SECONDS,
    ) -> None:
        """`open_request` begins vLLM's request; `idle` is how long it may wait, in seconds.

        Raises UnsupportedError for what vLLM begins anew at each take.
        """
        _check(engine, prefix, sampling)
        self._engine, self._sampling, self._idle = engine, sampling, idle
        self._open = open_request
        self._ids = list(prefix)
        self._known = 0  # so many of the ids are worked in
        self._stream: _Stream | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._taking = self._closed = False

    @property
    def ids(self) -> tuple[int, ...]:
        """All tokens: the prefix, what was sampled and what was put in."""
        return tuple(self._ids)

    @property
    def held(self) -> bool:
        """Whether the engine keeps a request, and so a KV cache, for this session."""
        return self._stream is not None

    def append(self, tokens: Sequence[int]) -> None:
        """Puts forced tokens at the end; the next take works them in."""
        self._check_free()
        check_room(self._engine, [*self._ids, *tokens], 1)
        self._ids += tokens

    async def take(self, limit: int) -> AsyncGenerator[Delta, None]:
        """Samples at most `limit` tokens (>= 1); the last delta says why it ended.

        A stop token does not end the session: the next take goes on after it.
        """
        self._check_free()
        check_generate(self._engine, self._ids, self._sampling, limit)
        self._taking, whole = True, False
        try:
            async for output in self._fed(limit).outputs:
                delta = delta_of(output.outputs[0], self._sampling)
                self._ids += delta.tokens
                whole = delta.finish is not None
                yield delta
                if whole:
                    return
            raise EngineError(f"engine {self._engine.name!r} ended a session")
        finally:
            self._taking = False
            if whole:
                self._rest()
            else:
                await self._give_up()

    async def close(self) -> None:
        """Frees the engine's request; the session samples no more."""
        self._closed = True
        await self._give_up()
        await asyncio.gather(*self._ending)

    def _check_free(self) -> None:
        if self._taking or self._closed:
            raise RuntimeError("the session is " + ("closed" if self._closed else "in use"))

    def _fed(self, limit: int) -> "_Stream":
        """The engine's request with the next chunk on its way."""
        if self._timer is not None:
            self._timer.cancel()
        with sorted_faults(self._engine.name):
            room = self._engine.max_context - len(self._ids)
            params = translated(self._sampling, min(limit, room))
        if self._stream is None:
            self._stream, self._known = _Stream(self._open, params), 0
        prompt = tokens_input(self._ids[self._known :], cache_salt=self._sampling.cache_salt)
        self._stream.feed(StreamingInput(prompt, params))
        return self._stream

    def _rest(self) -> None:
        """Waits for the next take, though not for ever."""
        # vLLM drops the last token it sampled, so that one is sent again.
        self._known = len(self._ids) - 1
        self._timer = asyncio.get_running_loop().call_later(self._idle, self._expire)

    def _expire(self) -> None:
        ending = asyncio.ensure_future(self._give_up())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _give_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.outputs.aclose()


class _Stream:
    """One request of vLLM's that is fed chunk by chunk."""

    def __init__(self, open_request: Open, params: SamplingParams) -> None:
        self._chunks: asyncio.Queue[StreamingInput] = asyncio.Queue()
        self.outputs = open_request(self._inputs(), params)

    def feed(self, chunk: StreamingInput) -> None:
        self._chunks.put_nowait(chunk)

    async def _inputs(self) -> Inputs:
        while True:
            yield await self._chunks.get()


def _check(engine: Engine, prefix: Sequence[int], sampling: Sampling) -> None:
    check_generate(engine, prefix, sampling, 1)
    for param in ("presence_penalty", "frequency_penalty", "min_tokens"):
        if getattr(sampling, param):
            raise UnsupportedError(f"{param}: not in a session, which begins it anew", param)
    if sampling.rule is not None:
        raise UnsupportedError("rule: not in a session, which gives no trace of it", "rule")

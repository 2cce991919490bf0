"""A model served by vLLM's asynchronous engine, in a process of its own.

Tokens in, tokens out: vLLM neither tokenizes nor detokenizes here. Its batching, prefix cache and
preemption are its own business. It does not know strategies or HTTP.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from engines.base import (
    Delta,
    Engine,
    EngineDeadError,
    EngineError,
    Finish,
    Sampling,
    TokenLogprob,
    ToolParser,
    UnsupportedError,
)
from engines.checkpoints import end_ids
from engines.checks import check_generate, check_ids, check_room
from engines.tokenizer import Tokenizer
from engines.vllm.launch import ended, launched
from engines.vllm.spec import Spec

if TYPE_CHECKING:
    from vllm import SamplingParams

    from engines.vllm.llm import Llm
    from engines.vllm.session import Session

START_SECONDS = 60
PACE = 4  # tokens that a paced request may be ahead of its reader
CHUNK = 128  # token ids whose log-probability one request may ask for (vLLM's own bound)


def build(name: str, spec: Mapping[str, Any]) -> "VllmEngine":
    """The engine `name` as configured. Raises ValueError (pydantic's, with the key) for a fault."""
    checked = Spec.model_validate(dict(spec))
    if checked.pools:
        from engines.vllm.pooling import VllmClassifier

        return VllmClassifier(name, checked)
    return VllmEngine(name, checked)


class VllmEngine(Engine):
    """One vLLM engine. Log-probabilities of sampled tokens are of what drew them."""

    kind = "vllm"
    capabilities = Spec.capabilities

    def __init__(self, name: str, spec: Spec) -> None:
        """Reads the tokenizer; weights are loaded by `start`."""
        self.name = name
        self.spec = spec
        self.tokenizer = Tokenizer.load(spec.tokenizer or spec.model)
        self.max_context = int(spec.engine_args.get("max_model_len") or 0)
        self.vocabulary = len(self.tokenizer)
        self._llm: Llm | None = None
        self._ids = count()
        self._running = 0
        self._aborted = 0

    # ---- life

    async def start(self) -> None:
        """Loads the model in a process of its own; raises EngineError with vLLM's reason."""
        await self.stop()
        given_up = threading.Event()
        try:
            llm = await asyncio.to_thread(launched, self.spec, given_up)
        except asyncio.CancelledError:
            given_up.set()  # the thread cannot be stopped, and ends itself what it has begun
            raise
        except ValueError as fault:
            raise EngineError(f"engine {self.name!r}: {fault}") from fault
        except Exception as fault:
            raise EngineError(f"engine {self.name!r} did not start: {fault}") from fault
        self._llm = llm
        self.max_context = llm.model_config.max_model_len
        self.vocabulary = llm.model_config.get_vocab_size()
        own = llm.model_config.try_get_generation_config()
        self.more_ends = end_ids(own.get("eos_token_id"))
        from engines.vllm.faults import sorted_faults

        # Also starts vLLM's reading tasks in this loop; without them a death goes unseen.
        with sorted_faults(self.name):
            async with asyncio.timeout(START_SECONDS):
                await llm.get_supported_tasks()

    async def stop(self) -> None:
        """Ends the engine's processes; running calls end with EngineDeadError."""
        llm, self._llm = self._llm, None
        if llm is not None:
            from vllm.v1.engine.exceptions import EngineDeadError as VllmDeadError

            # vLLM forgets to tell those who still wait.
            llm.output_processor.propagate_error(VllmDeadError())
            if llm.output_handler is not None:
                llm.output_handler.cancel()
            await asyncio.to_thread(ended, llm)

    async def check(self) -> None:
        """Raises EngineDeadError unless the engine's process lives."""
        if self._live().errored:
            raise EngineDeadError(f"engine {self.name!r} has died")

    def _live(self) -> "Llm":
        if self._llm is None:
            raise EngineDeadError(f"engine {self.name!r} is not running")
        return self._llm

    @property
    def running(self) -> int:
        """Requests that have been begun and neither ended nor been given up."""
        return self._running

    def figures(self) -> Mapping[str, float]:
        """As the engine's own process counted them at its last step."""
        if self._llm is None:
            return {}
        from engines.vllm.figures import figures_of

        return {**figures_of(self._llm), "aborted_requests_total": self._aborted}

    def tool_parser(self, name: str, tools: Sequence[Mapping[str, Any]] = ()) -> ToolParser:
        """vLLM's parser `name` for one answer; ValueError for an unknown one."""
        from engines.vllm.tools import tool_parser

        return tool_parser(name, self.tokenizer, tools)

    # ---- sampling

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, limit: int
    ) -> AsyncGenerator[Delta, None]:
        """One streamed request; closing it aborts it in the engine."""
        from vllm.inputs.engine import tokens_input

        from engines.vllm.faults import sorted_faults
        from engines.vllm.params import delta_of, translated

        check_generate(self, prefix, sampling, limit)
        if sampling.paced:
            async with aclosing(self._paced(prefix, sampling, limit)) as deltas:
                async for delta in deltas:
                    yield delta
            return
        with sorted_faults(self.name):
            params = translated(sampling, min(limit, self.max_context - len(prefix)))
        # A copy, since vLLM extends the list it is given.
        prompt = tokens_input(list(prefix), cache_salt=sampling.cache_salt)
        async with aclosing(self._outputs(prompt, params)) as outputs:
            async for output in outputs:
                yield delta_of(output.outputs[0], sampling)

    async def _paced(
        self, prefix: Sequence[int], sampling: Sampling, limit: int
    ) -> AsyncGenerator[Delta, None]:
        """The same tokens by a session, a few at a time, each few only when they are asked for."""
        left = min(limit, self.max_context - len(prefix))
        async with self.session(prefix, sampling) as session:
            while left > 0:
                async with aclosing(session.take(min(PACE, left))) as deltas:
                    async for delta in deltas:
                        left -= len(delta.tokens)
                        cut = delta.finish is Finish.LENGTH and left > 0
                        yield replace(delta, finish=None) if cut else delta
                        if delta.finish is Finish.STOP:
                            return

    @asynccontextmanager
    async def session(
        self, prefix: Sequence[int], sampling: Sampling, idle: float = 30.0
    ) -> AsyncIterator["Session"]:
        """A sequence kept at hand between takes; left alone for `idle` seconds it is put aside."""
        from engines.vllm.session import Session

        made = Session(self, self._outputs, prefix, sampling, idle)
        try:
            yield made
        finally:
            await made.close()

    async def _outputs(self, prompt: Any, params: Any) -> AsyncGenerator[Any, None]:
        """vLLM's outputs of one request, its errors as ours; `prompt` may be a stream of chunks."""
        from engines.vllm.faults import sorted_faults

        llm, request = self._live(), f"{self.name}-{next(self._ids)}"
        finished = False
        self._running += 1
        with sorted_faults(self.name):
            try:
                async with aclosing(self._asked(llm, prompt, params, request)) as outputs:
                    async for output in outputs:
                        finished = output.finished
                        yield output
            finally:
                self._running -= 1
                if not (finished or llm.errored):
                    self._aborted += 1
                    # vLLM does so itself, but not for what is cancelled as it is handed over.
                    await llm.abort(request)

    def _asked(
        self, llm: "Llm", prompt: Any, params: Any, request: str
    ) -> AsyncGenerator[Any, None]:
        outputs: AsyncGenerator[Any, None] = llm.generate(prompt, params, request)
        return outputs

    # ---- log-probabilities

    async def score(self, prefix: Sequence[int], continuation: Sequence[int]) -> list[TokenLogprob]:
        """Log-probability of each token of `continuation`, from one prefill."""
        check_room(self, [*prefix, *continuation], 1)
        if not continuation:
            return []
        found = await self._continuation([*prefix, *continuation], len(prefix), 0)
        return [entry for entry in found if entry is not None]

    async def prompt_logprobs(self, prompt: Sequence[int], top: int) -> list[TokenLogprob | None]:
        """Log-probability of each prompt token; None for the first."""
        check_room(self, prompt, 1)
        return await self._continuation(prompt, 0, top)

    async def _continuation(
        self, prompt: Sequence[int], start: int, top: int
    ) -> list[TokenLogprob | None]:
        """What `prompt[start:]` had as log-probabilities; the first of a prompt has none.

        What the prefix cache already holds is not computed, so has no log-probabilities: the cache
        is read where that spares only what stands before `start`, else all is computed again.
        """
        from vllm import SamplingParams

        from engines.vllm.params import entry

        params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=top, detokenize=False)
        params.skip_reading_prefix_cache = start == 0
        last = await self._last(prompt, params)
        if start and (last.num_cached_tokens or 0) >= start:
            params.skip_reading_prefix_cache = True
            last = await self._last(prompt, params)
        rows = last.prompt_logprobs[start - len(prompt) :]
        return [
            None if row is None else entry(token, row, top)
            for token, row in zip(prompt[start:], rows, strict=True)
        ]

    async def next_logprobs(
        self,
        prefix: Sequence[int],
        k: int | None = None,
        *,
        tokens: Sequence[int] | None = None,
        member: str | None = None,
    ) -> dict[int, float]:
        """The `k` most likely next tokens, or `tokens`, with their log-probabilities."""
        if member is not None:
            raise UnsupportedError(f"engine {self.name!r} has no members", "member")
        check_room(self, prefix, 1)
        if tokens is None:
            return await self._next(prefix, logprobs=self.vocabulary if k is None else k)
        check_ids(self, tokens, "tokens")
        if not self._live().vllm_config.use_v2_model_runner:
            # Asked for by id, the V1 runner takes the alternatives from others in the same batch.
            every = await self._next(prefix, logprobs=self.vocabulary)
            return {token: every[token] for token in tokens}
        parts = [list(tokens[at : at + CHUNK]) for at in range(0, len(tokens), CHUNK)]
        found = await asyncio.gather(*(self._next(prefix, logprob_token_ids=p) for p in parts))
        merged = {token: value for part in found for token, value in part.items()}
        return {token: merged[token] for token in tokens}

    async def _next(self, prefix: Sequence[int], **asked: Any) -> dict[int, float]:
        """Log-probabilities by token, likeliest first."""
        from vllm import SamplingParams

        params = SamplingParams(
            max_tokens=1, temperature=0, detokenize=False, flat_logprobs=True, **asked
        )
        row = (await self._last(prefix, params)).outputs[0].logprobs
        found = dict(zip(row.token_ids, row.logprobs, strict=True))
        ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        return dict(ranked[: asked.get("logprobs")])

    async def _last(self, prefix: Sequence[int], params: "SamplingParams") -> Any:
        from vllm.inputs.engine import tokens_input

        async with aclosing(self._outputs(tokens_input(list(prefix)), params)) as outputs:
            return [output async for output in outputs][-1]

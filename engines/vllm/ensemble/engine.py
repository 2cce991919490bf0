"""A policy ensemble served by vLLM: several models, one sequence, a rule for each request.

Requests without a rule are those of any vLLM engine, answered by the first member. With one, what
was chosen for each token comes out of the worker beside the tokens. It knows no strategy.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.adapters import all_whole
from engines.base import Choice, Delta, EngineError, Sampling, TokenLogprob
from engines.checks import check_generate, check_ids, check_room
from engines.ensemble import Ensemble, agreed
from engines.vllm import spec as plain
from engines.vllm.engine import VllmEngine
from engines.vllm.ensemble.spec import Spec

if TYPE_CHECKING:
    from engines.vllm.ensemble.trace import Receiver, Record

RUNNER = "VLLM_USE_V2_MODEL_RUNNER"
PROCESSOR = "engines.vllm.ensemble.processors:PolicyProcessor"


def build(name: str, spec: Mapping[str, Any]) -> "VllmEnsemble":
    """The engine `name` as configured. Raises ValueError (pydantic's, with the key) for a fault."""
    return VllmEnsemble(name, Spec.model_validate(dict(spec)))


class VllmEnsemble(Ensemble, VllmEngine):
    """One vLLM engine that hosts all members as one model."""

    kind = "ensemble"
    capabilities = Spec.capabilities

    def __init__(self, name: str, spec: Spec) -> None:
        """Reads the first member's tokenizer; weights are loaded by `start`."""
        alone = plain.Spec(
            model=spec.first, tokenizer=spec.tokenizer or spec.first, engine_args=spec.engine_args
        )
        super().__init__(name, alone)
        self.ensemble, self.cast = spec, spec.cast
        self.members = tuple(spec.members)
        self._traces: Receiver | None = None
        self._keys = count()
        self._folder: Path | None = None
        # The processor has run under vLLM's first runner only. The choice is one for the whole
        # process, so it is made before any engine starts.
        os.environ.setdefault(RUNNER, "0")

    # ---- life

    async def start(self) -> None:
        """Checks that members agree and loads them; EngineError names what they disagree on."""
        from engines.vllm.ensemble.folder import written
        from engines.vllm.ensemble.trace import Receiver

        await self.stop()
        self._folder = Path(tempfile.mkdtemp(prefix="satisfice-"))
        try:
            whole = await asyncio.to_thread(all_whole, self.ensemble.members, self._folder)
            vocabulary = await asyncio.to_thread(agreed, self.name, whole)
            paths = list(whole.values())
            await asyncio.to_thread(written, self._folder, paths, vocabulary)
            address = f"ipc://{self._folder}/trace"
            self._traces = Receiver(address)
            self.spec = self._hosting(self._folder, address, paths[0])
            await super().start()
        except BaseException:
            await self._clear()
            raise

    def _hosting(self, folder: Path, address: str, first: str) -> plain.Spec:
        """vLLM's configuration of the ensemble's own folder."""
        own = self.ensemble
        given = own.engine_args
        parts = {
            "members": list(own.members),
            "reference": own.reference,
            "rewards": {name: made.model_dump() for name, made in own.rewards.items()},
            "trace": address,
        }
        args = {
            # The folder has no generation settings; the first member's say where answers end.
            "generation_config": first,
            **given,
            "logits_processors": [PROCESSOR],
            "additional_config": {**(given.get("additional_config") or {}), "satisfice": parts},
        }
        return plain.Spec(model=str(folder), tokenizer=own.tokenizer or first, engine_args=args)

    async def stop(self) -> None:
        """Ends the engine's processes and removes what they were given."""
        # Also called as a start begins, when what it needs is there and nothing runs yet.
        ran = self._llm is not None
        await super().stop()
        if ran:
            await self._clear()

    async def _clear(self) -> None:
        traces, self._traces = self._traces, None
        if traces is not None:
            await traces.close()
        folder, self._folder = self._folder, None
        if folder is not None:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    @property
    def traced(self) -> int:
        """Requests whose choices are kept until their tokens come."""
        return 0 if self._traces is None else len(self._traces)

    # ---- sampling

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, limit: int
    ) -> AsyncGenerator[Delta, None]:
        """One streamed request; with a rule each delta says what was chosen for its tokens."""
        if sampling.rule is None:
            source = super().generate(prefix, sampling, limit)
        else:
            check_generate(self, prefix, sampling, limit)
            source = self._ruled(prefix, sampling, limit)
        async with aclosing(source) as deltas:
            async for delta in deltas:
                yield delta

    async def _ruled(
        self, prefix: Sequence[int], sampling: Sampling, limit: int
    ) -> AsyncGenerator[Delta, None]:
        from vllm.inputs.engine import tokens_input

        from engines.vllm.faults import sorted_faults
        from engines.vllm.params import delta_of, translated

        self._live()
        traces, key = self._traces, f"{self.name}-{next(self._keys)}"
        assert traces is not None
        with sorted_faults(self.name):
            params = translated(sampling, min(limit, self.max_context - len(prefix)))
        params.extra_args = asked(sampling, key)
        at = len(prefix)
        prompt = tokens_input(list(prefix), cache_salt=sampling.cache_salt)
        traces.open(key)
        try:
            async with aclosing(self._outputs(prompt, params)) as outputs:
                async for output in outputs:
                    delta = delta_of(output.outputs[0], sampling)
                    records = await traces.take(key, range(at, at + len(delta.tokens)))
                    at += len(delta.tokens)
                    yield joined(delta, records)
        finally:
            traces.drop(key)

    # ---- log-probabilities

    async def next_logprobs(
        self,
        prefix: Sequence[int],
        k: int | None = None,
        *,
        tokens: Sequence[int] | None = None,
        member: str | None = None,
    ) -> dict[int, float]:
        """The likeliest next tokens, or `tokens`: the first member's, or those of `member`.

        EngineError where the member has none.
        """
        if member is None:
            return await super().next_logprobs(prefix, k, tokens=tokens)
        sampling = self.asking(member)
        check_room(self, prefix, 1)
        check_ids(self, tokens or (), "tokens")
        count = k if k is not None and tokens is None else self.vocabulary
        async with aclosing(self._ruled(prefix, sampling.but(logprobs=count), 1)) as deltas:
            found = [delta async for delta in deltas]
        for choice in (one for delta in found for one in delta.choices or ()):
            if choice.degraded is not None:
                raise EngineError(f"engine {self.name!r}: member {member!r}: {choice.degraded}")
        top = dict(next(entry for delta in found for entry in delta.logprobs or ()).top)
        return top if tokens is None else {token: top[token] for token in tokens}


def asked(sampling: Sampling, key: str) -> dict[str, Any]:
    """What the worker is told of a request's rule."""
    rule = sampling.rule
    assert rule is not None
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in rule.parameters.items()}
    return {"rule": {"name": rule.name, "parameters": plain, "trace": key}}


def joined(delta: Delta, records: "Sequence[Record]") -> Delta:
    """Tokens with what was chosen for each; a settled token has the speaker's log-probability."""
    choices = [Choice(r["policy"], r.get("notes", {}), r.get("degraded")) for r in records]
    logprobs = delta.logprobs
    if logprobs is not None:
        pairs = zip(logprobs, records, strict=True)
        logprobs = [
            spoken(record["logprob"]) if "logprob" in record else own for own, record in pairs
        ]
    return replace(delta, logprobs=logprobs, choices=choices)


def spoken(entry: Sequence[Any]) -> TokenLogprob:
    """A log-probability as the worker writes it."""
    token, value, top = entry
    return TokenLogprob(token, value, tuple((other, p) for other, p in top))

"""A policy ensemble in plain torch and transformers: the oracle that the fast one is held to.

Each policy is a model of its own with a cache of its own; the rules are the same pure functions,
asked for one row at a time. It knows no strategies and no HTTP.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from transformers import AutoModelForCausalLM

from engines import reference
from engines.adapters import all_whole
from engines.base import Capability, Choice, Delta, Finish, Sampling, TokenLogprob
from engines.checkpoints import loaded
from engines.checks import check_generate, check_ids, check_room
from engines.drawing import Draw, best, log_softmax
from engines.ensemble import Ensemble, EnsembleSpec, agreed
from engines.reference import ReferenceEngine, Row, Walk
from engines.rules.core.single import ruled


class Spec(EnsembleSpec):
    """`{kind: reference_ensemble, members: {NAME: PATH}}`; an unknown key is an error."""

    capabilities: ClassVar = reference.Spec.capabilities | {Capability.RULES}

    kind: Literal["reference_ensemble"] = "reference_ensemble"
    max_context: int | None = Field(None, ge=2, description="tokens; the members' least by default")
    device: str = "cpu"


def build(name: str, spec: Mapping[str, Any]) -> "ReferenceEnsemble":
    """The engine `name` as configured. Raises ValueError (pydantic's, with the key) for a fault."""
    return ReferenceEnsemble(name, Spec.model_validate(dict(spec)))


class ReferenceEnsemble(Ensemble, ReferenceEngine):
    """Several models in float32, stepped one after the other."""

    kind = "reference_ensemble"
    capabilities = Spec.capabilities

    def __init__(self, name: str, spec: Spec) -> None:
        """Loads nothing yet."""
        alone = reference.Spec(
            model=spec.first,
            tokenizer=spec.tokenizer,
            max_context=spec.max_context,
            device=spec.device,
        )
        super().__init__(name, alone)
        self.ensemble, self.cast = spec, spec.cast
        self.members = tuple(spec.members)
        self._others: list[Any] = []

    def _load(self) -> None:
        with TemporaryDirectory(prefix="satisfice-") as folder:
            members = all_whole(self.ensemble.members, Path(folder))
            self.vocabulary = agreed(self.name, members)
            first, *others = members.values()
            self.spec = self.spec.model_copy(update={"model": first})
            super()._load()
            for path in others:
                model = loaded(AutoModelForCausalLM, path, dtype=torch.float32)
                self._others.append(model.to(self.spec.device))
                own = int(model.config.max_position_embeddings)
                self.max_context = min(self.max_context, own)

    async def stop(self) -> None:
        """Frees all members' weights."""
        self._others = []
        await super().stop()

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, limit: int
    ) -> AsyncGenerator[Delta, None]:
        """Samples token by token; with a rule every policy takes each step."""
        source = super().generate(prefix, sampling, limit)
        if sampling.rule is not None:
            check_generate(self, prefix, sampling, limit)
            source = self._ruled(prefix, sampling, limit)
        async with aclosing(source) as deltas:
            async for delta in deltas:
                yield delta

    async def _ruled(
        self, prefix: Sequence[int], sampling: Sampling, limit: int
    ) -> AsyncGenerator[Delta, None]:
        ends = self.ending(sampling)
        draw = Draw(sampling, prefix, ends)
        walks = [self._walk(), *map(Walk, self._others)]
        limit = min(limit, self.max_context - len(prefix))
        unread = list(prefix)
        with self._working():
            for count in range(1, limit + 1):
                rows = [(await self._threaded(walk.feed, unread))[-1] for walk in walks]
                drawn, choice = await self._threaded(self._chosen, rows, draw, sampling)
                unread = [drawn.token]
                finish = Finish.LENGTH if count == limit else None
                if drawn.token in ends:
                    finish = Finish.STOP
                logprobs = None if sampling.logprobs is None else [drawn]
                yield Delta(unread, logprobs, finish, choices=[choice])
                if finish:
                    return

    def _chosen(
        self, rows: Sequence[Row], draw: Draw, sampling: Sampling
    ) -> tuple[TokenLogprob, Choice]:
        """The next token and how it came about, from each policy's logits."""
        return ruled(self.cast, [row[: self.vocabulary] for row in rows], draw, sampling)

    async def next_logprobs(
        self,
        prefix: Sequence[int],
        k: int | None = None,
        *,
        tokens: Sequence[int] | None = None,
        member: str | None = None,
    ) -> dict[int, float]:
        """From one forward pass of the member, else of the first."""
        if member is None:
            return await super().next_logprobs(prefix, k, tokens=tokens)
        self.asking(member)
        check_room(self, prefix, 1)
        check_ids(self, tokens or (), "tokens")
        walk = [self._walk(), *map(Walk, self._others)][self.members.index(member)]
        with self._working():
            row = log_softmax((await self._threaded(walk.feed, prefix))[-1][: self.vocabulary])
        if tokens is not None:
            return {token: float(row[token]) for token in tokens}
        return dict(best(row, len(row) if k is None else k))

"""A table engine with several members: policies whose distributions are known, row by row."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from engines.base import Capability, Choice, Delta, Finish, Sampling
from engines.checks import check_generate
from engines.drawing import Draw
from engines.ensemble import Ensemble
from engines.rules.core.cast import Cast, Reward
from engines.rules.core.single import ruled
from engines.table import Spec, TableEngine, spell
from tests.fakes.requests import THINKER, Jittered

MEMBERS = ("first", "second", "third", "base", "wish")


class Pool(Ensemble, TableEngine):
    """Members are tables of seeds of their own; the first one is the table without a rule."""

    capabilities = TableEngine.capabilities | {Capability.RULES}
    members = MEMBERS

    def __init__(self, name: str, spec: Spec) -> None:
        super().__init__(name, spec)
        wish = Reward(member="wish", reference="base", beta=0.5)
        self.cast = Cast(MEMBERS, "base", {"wish": wish})
        self.others = [
            TableEngine(member, Spec(seed=at, max_context=spec.max_context))
            for at, member in enumerate(MEMBERS[1:], 100)
        ]

    async def start(self) -> None:
        """Makes all tables."""
        await super().start()
        for other in self.others:
            await other.start()

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, limit: int
    ) -> AsyncGenerator[Delta, None]:
        """With a rule every member takes each step."""
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
        ends = (*sampling.stop_token_ids, self.tokenizer.eos_id or 0)
        draw, spelled = Draw(sampling, prefix, ends), spell(prefix)
        with self._working():
            for count in range(min(limit, self.max_context - len(prefix))):
                await self._step(spelled, count, len(prefix))
                rows = [self.logits(spelled), *(one.logits(spelled) for one in self.others)]
                drawn, choice = ruled(self.cast, rows, draw, sampling)
                spelled += chr(drawn.token)
                finish = Finish.LENGTH if count + 1 == limit else None
                finish = Finish.STOP if drawn.token in ends else finish
                told = None if sampling.logprobs is None else (drawn,)
                yield Delta((drawn.token,), told, finish, choices=(choice,))
                if finish:
                    return


class JitteredPool(Jittered, Pool):
    """A pool whose deltas come after seeded random pauses."""


class FaultyPool(Pool):
    """A pool in which rules fail: the first member speaks in their place.

    Those in `failing`, None for all, `after` so many tokens of a request.
    """

    def __init__(self, failing: frozenset[str] | None = None, after: int = 0) -> None:
        super().__init__("table", Spec(script={}))
        self.failing, self.after = failing, after

    async def _ruled(
        self, prefix: Sequence[int], sampling: Sampling, limit: int
    ) -> AsyncGenerator[Delta, None]:
        assert sampling.rule is not None
        sound, ended = self.after, False
        if self.failing is not None and sampling.rule.name not in self.failing:
            sound = limit
        if sound:
            async with aclosing(super()._ruled(prefix, sampling, min(limit, sound))) as deltas:
                async for delta in deltas:
                    prefix = [*prefix, *delta.tokens]
                    ended = limit <= sound or delta.finish is Finish.STOP
                    yield delta if ended else replace(delta, finish=None)
            if ended:
                return
            limit -= sound
        alone = TableEngine.generate(self, prefix, sampling.but(rule=None), limit)
        async with aclosing(alone) as deltas:
            async for delta in deltas:
                failed = Choice(MEMBERS[0], degraded="out of order")
                yield replace(delta, choices=[failed] * len(delta.tokens))


def pool(kind: type[Pool] = Pool, **spec: Any) -> Pool:
    """A pool whose first member thinks and answers 7 when greeted."""
    return kind("table", Spec(**{"script": {"hello": THINKER}, **spec}))

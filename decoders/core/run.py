"""A run: one choice of one request while it is decoded.

Composes a scope, a ledger and a trace and offers decoders what they may ask for. The run counts,
limits, cancels and reports, so that decoders need not; it does not know HTTP or any strategy.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any, TypeVar

from pydantic import ValidationError

from decoders.core.base import Commit, DecodeRequest, Estimate, MonitorCallsSpent, Peer
from decoders.core.faults import located
from decoders.core.ledger import Ledger, shares
from decoders.core.output import Reading, read
from decoders.core.registry import find
from decoders.core.scope import Together
from decoders.core.seeds import derive
from decoders.core.stops import ended
from decoders.core.trace import Trace
from engines.base import Delta, Engine, Finish, Sampling
from monitors.core.base import Monitor, MonitorError, Score, Stage

T = TypeVar("T")
INTERVENTION = "forced"
PATH = "path"


class Refused(Exception):
    """Ends a run with nothing more sent; the text is the reason."""


@dataclass(slots=True)
class Tally:
    """What a run and all its children did, for the summary."""

    interventions: int = 0
    branches: int = 0
    held_back: int = 0
    cut: str | None = None
    degraded: str | None = None
    sources: set[AsyncGenerator[Delta, None]] = field(default_factory=set)

    def degrade(self, reason: str) -> None:
        """Something stands that should have been judged and was not."""
        self.degraded = reason


class Run:
    """What a decoder sees of a request.

    `prompt` are its token ids, `max_tokens` caps one finished answer (prompt not counted), `think`
    are the model's markers or None, `sampling` is what the client asked for, with this run's seed.
    """

    def __init__(
        self, request: DecodeRequest, ledger: Ledger, trace: Trace, tally: Tally,
        path: tuple[int | str, ...],
    ) -> None:  # fmt: skip
        """Made by `answer` for a choice and by `fork` for a branch."""
        self.request = request
        self.prompt = request.prompt
        self.think = request.think
        self.max_tokens = request.max_tokens
        self.sampling: Sampling = request.sampling
        if request.seed is not None:  # of what a decoder draws itself
            self.sampling = request.sampling.but(seed=derive(request.seed, *path, "draw"))
        self.tally = tally
        self._ledger = ledger
        self._trace = trace
        self._path = path

    # ---- what decoders ask for

    @property
    def allowance(self) -> int | None:
        """The sampled tokens that the budget leaves this run; None is no limit."""
        return self._ledger.tokens

    async def generate(
        self,
        after: Sequence[int] = (),
        *,
        limit: int | None = None,
        purpose: tuple[int | str, ...] = ("main",),
        peer: Peer | None = None,
        **changes: Any,
    ) -> AsyncGenerator[Delta, None]:
        """Samples after the prompt and `after`; the last delta has `finish`.

        At most `limit` tokens and never more than the answer's cap, the context and the budget
        leave; a deadline ends it too. `purpose` is what the seed is derived from, `changes` are
        fields of `Sampling`. With `peer` that model speaks, and all tokens are its own.
        """
        engine, prompt, room = self._speaker(after, peer)
        room = room if limit is None else min(room, limit)
        granted = self._grant(room)
        if granted < 1:
            yield Delta((), finish=Finish.LENGTH)
            return
        sampling = self._sampling(purpose, changes)
        self._ledger.usage.engine_requests += 1
        used = 0
        source = engine.generate((*prompt, *after), sampling, granted)
        self.tally.sources.add(source)
        try:
            deltas = source if self._ledger.deadline is None else self._in_time(source)
            async for delta in deltas:
                used += self._ledger.book(delta)
                if delta.finish is Finish.LENGTH and granted < room:
                    self.tally.cut = "max_generated_tokens"
                yield delta
        finally:
            self.tally.sources.discard(source)
            await source.aclose()
            self._ledger.settle(granted, used)

    def fork(self, count: int, shared: bool = False) -> list["Run"]:
        """Up to `count` independent runs from here, as many as the budget's branches allow.

        Each has seeds of its own and an even part of what is left of the budget, after which this
        run has nothing left. `shared` ones spend this run's own, which goes on after them, and
        their seeds differ by purpose alone. Where no branch is left there is one run all the same:
        it decodes in this one's place.
        """
        granted = self._ledger.open_branches(count)
        if granted < count:
            self.tally.cut = "max_branches"
        self.tally.branches += granted
        if shared:
            return [self] * max(1, granted)
        ledgers = self._ledger.split(max(1, granted))
        return [self._child(i, ledger) for i, ledger in enumerate(ledgers)]

    def together(self, sources: Sequence[AsyncGenerator[T, None]]) -> Together[T]:
        """Drives several sources side by side; see `Together`."""
        return Together(sources)

    async def score(
        self, monitor: Monitor, steps: Sequence[str], stage: Stage = Stage.ANSWER,
        *, failed: Callable[[str], None] | None = None,
    ) -> Score | None:  # fmt: skip
        """A monitor's verdict on the conversation continued by `steps`.

        None if the monitor failed and its configuration says `continue`; with `block` the run
        ends refused. `failed` takes the reason of the former where the verdict may turn out not
        to matter; without it the run is degraded. Raises `MonitorCallsSpent` when the budget
        allows no further call.
        """
        self._ledger.call()
        limit = asyncio.timeout_at(self._ledger.deadline)
        try:
            async with limit:
                verdict = await monitor.score(self.request.messages, steps, stage)
            if isnan(verdict.value):
                raise MonitorError("its score is not a number")
        except Exception as fault:  # whatever a monitor does, it has not answered
            if isinstance(fault, TimeoutError) and limit.expired():
                self.tally.cut = "deadline_ms"
                raise MonitorCallsSpent("the deadline ended a monitor call") from None
            reason = self._monitor_failed(monitor, fault)
            (failed or self.tally.degrade)(reason)
            return None
        self._ledger.usage.monitor_tokens += verdict.tokens
        return verdict

    def decode(self, name: str, options: Mapping[str, Any]) -> AsyncGenerator[Commit, None]:
        """Decodes this run by another strategy: how strategies compose."""
        strategy = find(name)
        where = "decoding.params.path.params"
        return strategy.body(self, checked(strategy.options, options, where))

    def read(self, tokens: Sequence[int]) -> Reading:
        """The reasoning and content that an answer's tokens spell, up to a stop string."""
        request = self.request
        if (stood := ended(request, tokens)) is not None:
            return stood
        think = request.think if request.chat else None
        return read(request.engine.tokenizer, think, request.think_open, tokens)

    def note(
        self,
        kind: str,
        *,
        tokens: Sequence[int] | None = None,
        parent: int | None = None,
        summary: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> int | None:
        """Records what happened: a node of the full trace, an event of the stream.

        `summary` fields go into the choice's `decoding` object; those of a branch stay with its
        notes. A note of kind INTERVENTION counts as one.
        """
        self.tally.interventions += kind == INTERVENTION
        branch = [step for step in self._path[1:] if step != PATH]
        if branch:
            fields = {"branch": branch, **(summary or {}), **fields}
        elif summary:
            self._trace.summary.update(summary)
        return self._trace.note(kind, parent, tokens, fields)

    # ---- how it keeps its promises

    def _speaker(
        self, after: Sequence[int], peer: Peer | None
    ) -> tuple[Engine, Sequence[int], int]:
        """Who samples, behind which prompt, and how many tokens there is room for."""
        if peer is not None:
            context = peer.engine.max_context - len(peer.prompt)
            return peer.engine, peer.prompt, context - len(after)
        context = self.request.engine.max_context - len(self.prompt)
        return self.request.engine, self.prompt, min(self.max_tokens, context) - len(after)

    def _grant(self, room: int) -> int:
        """Reserves tokens; remembers which limit of the budget said no."""
        due = self._ledger.deadline
        if due is not None and asyncio.get_running_loop().time() >= due:
            self.tally.cut = "deadline_ms"
            return 0
        granted = self._ledger.reserve(max(0, room))
        if room > 0 and granted < 1:
            self.tally.cut = "max_generated_tokens"
        return granted

    def _sampling(self, purpose: tuple[int | str, ...], changes: Mapping[str, Any]) -> Sampling:
        seed = derive(self.request.seed, *self._path, *purpose)
        if seed is None and not changes:
            return self.sampling
        return self.sampling.but(seed=seed, **changes)

    async def _in_time(self, source: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
        """The deltas that come before the deadline, then one that says LENGTH."""
        due = self._ledger.deadline
        try:
            while True:
                async with asyncio.timeout_at(due):
                    delta = await anext(source)
                yield delta
        except StopAsyncIteration:
            return
        except TimeoutError:
            self.tally.cut = "deadline_ms"
            yield Delta((), finish=Finish.LENGTH)

    def _child(self, index: int, ledger: Ledger) -> "Run":
        return Run(self.request, ledger, self._trace, self.tally, (*self._path, PATH, index))

    def _monitor_failed(self, monitor: Monitor, fault: Exception) -> str:
        reason = f"monitor {monitor.name!r} could not answer: {str(fault) or type(fault).__name__}"
        if self.request.on_monitor_error.get(monitor.name, "block") != "continue":
            raise Refused(reason) from fault
        return reason


def checked(options: type[Any], params: Mapping[str, Any], where: str) -> Any:
    """Validated options; a fault becomes a `RequestError` whose param begins with `where`."""
    try:
        return options.model_validate(params)
    except ValidationError as fault:
        raise located(fault, params, where) from fault


def estimate(*requests: DecodeRequest) -> Estimate:
    """What all choices of all prompts of one call may cost at most.

    Raises `RequestError` for what only a request as a whole can tell to be wrong.
    """
    parts = [_within(*one) for one in zip(requests, shares(requests), strict=True)]
    return Estimate(
        rows=sum(one.rows for one in parts),
        generated_tokens=sum(one.generated_tokens for one in parts),
        engine_requests=sum(one.engine_requests for one in parts),
        monitor_calls=sum(one.monitor_calls for one in parts),
    )


def _within(request: DecodeRequest, parts: Sequence[Ledger]) -> Estimate:
    """What the choices of one prompt may cost with these parts of the budget."""
    strategy = find(request.strategy)
    if strategy.check is not None:
        strategy.check(request.options, request)
    one = strategy.estimate(request.options, request)
    return Estimate(
        # A run that may open no branch still decodes one sequence.
        rows=sum(
            least(one.rows, None if s.branches is None else max(1, s.branches)) for s in parts
        ),
        generated_tokens=sum(least(one.generated_tokens, s.tokens) for s in parts),
        engine_requests=request.n * one.engine_requests,
        monitor_calls=sum(least(one.monitor_calls, s.calls) for s in parts),
    )


def least(cost: int, allowance: int | None) -> int:
    """The cost within an allowance; None is no limit."""
    return cost if allowance is None else min(cost, allowance)

"""Who may speak in an engine, what each would say next, and answers whose tokens a rule chooses.

An engine of one model has one nameless agent. It knows no utility and no strategy.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from decoders.core.base import Commit, DecodeRequest, RequestError
from decoders.core.foreign import peer, spoken
from decoders.core.run import Run
from decoders.core.stops import Stops
from engines.base import Capability, Choice, Delta, Engine, Finish, Rule, TokenLogprob
from engines.base import UnsupportedError as Unsupported
from engines.ensemble import Ensemble

T = TypeVar("T")
FLAT: Mapping[str, Any] = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
"""Log-probabilities of the model itself."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What `agent` would say next: one token, or a block of several.

    `logprob` is the first token's (natural log), `reference` the same under what the agent is
    compared to and `kl` how far its whole next-token distribution is from that, in nats.
    `sampled` counts the tokens of another model that it was read from, see `Commit`. `voices` are
    who really said each token, where a rule that failed let another one speak.
    """

    agent: str | None
    tokens: tuple[int, ...]
    logprob: float = 0.0
    kl: float = 0.0
    reference: float = 0.0
    finish: Finish | None = None
    entries: tuple[TokenLogprob, ...] | None = None
    sampled: int | None = None
    voices: tuple[str | None, ...] = ()

    @property
    def speakers(self) -> tuple[str | None, ...]:
        """Who said each token."""
        return self.voices or (self.agent,) * len(self.tokens)

    @property
    def speaker(self) -> str | None:
        """Who said most of it."""
        return Counter(self.speakers).most_common(1)[0][0]

    def commit(self) -> Commit:
        """Its tokens, as they stand now."""
        return Commit(self.tokens, False, self.entries, self.finish, self.sampled)


def speakers(engine: Engine, named: Sequence[str] | None) -> tuple[str | None, ...]:
    """The agents: those named, else all policies of an ensemble, else the one model."""
    if named is not None:
        return tuple(named)
    return engine.cast.policies if isinstance(engine, Ensemble) else (None,)


def base(engine: Engine, named: str | None) -> str | None:
    """The policy that is guided: the one named, else an ensemble's reference, else its first."""
    if named is None and isinstance(engine, Ensemble):
        return engine.cast.reference or engine.members[0]
    return named


async def voiced(
    run: Run, agent: str | None, after: Sequence[int] = (), **asked: Any
) -> AsyncGenerator[Delta, None]:
    """What one agent says, up to a stop string; `asked` is what `Run.generate` takes.

    Where the rule that lets it speak fails, the first member does: each choice says who spoke, and
    the run is degraded.
    """
    stops = Stops(run.request, after)
    if stops.found:
        return
    if agent is not None:
        asked["rule"] = Rule("only", {"policy": agent})
    async with aclosing(run.generate(after, **asked)) as deltas:
        async for delta in deltas:
            for choice in delta.choices or ():
                _degraded(run, choice)
            taken = stops.standing(Commit.of(delta))
            if stops.found:
                entries = delta.logprobs and delta.logprobs[:taken]
                yield replace(delta, tokens=delta.tokens[:taken], logprobs=entries, finish=None)
                return
            yield delta


def _degraded(run: Run, choice: Choice) -> None:
    if choice.degraded is not None:
        run.tally.degrade(choice.degraded)


def check_rule(
    request: DecodeRequest, rule: Rule, renamed: Mapping[str, str] | None = None
) -> None:
    """The engine can follow the rule; `RequestError` names the parameter, `renamed` if so."""
    try:
        request.engine.check_rule(rule)
    except Unsupported as fault:
        name, _, rest = (fault.param or "").partition(".")
        name = "utility" if name == "model" else (renamed or {}).get(name, name)
        where = ".".join(filter(None, ("decoding.params", name, rest)))
        raise RequestError(f"{where}: {fault}", where) from fault


def check_agents(
    request: DecodeRequest, agents: Sequence[str] | None, reference: str, where: str = "agents"
) -> None:
    """All agents and the reference exist; without an ensemble none may be named."""
    if Capability.RULES in request.engine.capabilities:
        named = {} if agents is None else {"agents": list(agents)}
        check_rule(request, Rule("propose", {**named, "reference": reference}), {"agents": where})
    elif agents is not None or reference not in ("mixture", "none"):
        path = f"decoding.params.{'reference' if agents is None else where}"
        raise RequestError(f"{path}: the engine has one model and no members", path)


def check_tokens(request: DecodeRequest) -> None:
    """Single tokens can be proposed, since the engine tells how likely they are."""
    if not {Capability.RULES, Capability.LOGPROBS} & request.engine.capabilities:
        where = "decoding.params.block"
        message = f"{where}: the engine gives no log-probabilities; blocks of 2 and more need none"
        raise RequestError(message, where)


async def ruled(
    run: Run, rule: Rule, seen: Callable[[int, Choice], None] | None = None
) -> AsyncGenerator[Commit, None]:
    """An answer whose tokens the engine chooses by a rule; each choice is noted, and `seen`."""
    figures: dict[str, Counter[str]] = {}
    async for delta in run.generate(rule=rule):
        for token, choice in zip(delta.tokens, delta.choices or (), strict=False):
            _tell(run, token, choice, figures)
            if seen is not None:
                seen(token, choice)
        yield Commit.of(delta)


def _tell(run: Run, token: int, choice: Choice, figures: dict[str, Counter[str]]) -> None:
    _degraded(run, choice)
    for kind, value in (("policies", choice.policy), ("states", choice.notes.get("state"))):
        if value is not None:
            figures.setdefault(kind, Counter())[value] += 1
    summary = {kind: dict(counts) for kind, counts in figures.items()}
    run.note("token", tokens=[token], summary=summary, policy=choice.policy, **choice.notes)


async def proposals(
    run: Run, done: Sequence[int], agents: Sequence[str | None], count: int, reference: str = "none"
) -> list[Candidate]:
    """Each agent's `count` likeliest next tokens, best first; empty when nothing more may come.

    One step of the engine: it costs one sampled token.
    """
    wide = max(count, run.sampling.logprobs or 0)
    changes: dict[str, Any] = {"logprobs": wide}
    if agents[0] is not None:
        asked = {"agents": list(agents), "candidates": wide, "reference": reference}
        # The rule tells of all agents; where it fails, only the engine tells of who spoke.
        changes = {"logprobs": run.sampling.logprobs, "rule": Rule("propose", asked)}
    purpose = ("propose", len(done))
    async for delta in run.generate(done, limit=1, purpose=purpose, **FLAT, **changes):
        if delta.tokens and delta.choices and not delta.choices[0].notes:
            _degraded(run, delta.choices[0])
            return [_in_place(run, delta)]
        if delta.tokens:
            return _candidates(run, delta, count)
    return []


def _in_place(run: Run, delta: Delta) -> Candidate:
    """What the first member said where the rule failed; how likely, if that is to be told."""
    first, token = run.request.engine.members[0], delta.tokens[0]
    entries = None if delta.logprobs is None else tuple(delta.logprobs)
    return Candidate(first, (token,), finish=_end(token, ends(run)), entries=entries)


def _candidates(run: Run, delta: Delta, count: int) -> list[Candidate]:
    notes: Mapping[str, Any] = delta.choices[0].notes if delta.choices else _one(delta)
    return [
        one
        for place, agent in enumerate(notes["agents"])
        for one in _ranked(run, agent, place, notes)[:count]
        if one.logprob > float("-inf")
    ]


def _ranked(run: Run, agent: str | None, place: int, notes: Mapping[str, Any]) -> list[Candidate]:
    """One agent's tokens, best first."""
    ranked = list(zip(notes["tokens"][place], notes["logprobs"][place], strict=True))
    # Where nothing is to diverge from, nothing diverges.
    reference = notes.get("reference", notes["logprobs"])[place]
    kl, last = notes["kl"][place], ends(run)
    return [
        Candidate(
            agent, (token,), logprob, kl, reference[at], _end(token, last),
            _entries(run, token, logprob, ranked),
        )
        for at, (token, logprob) in enumerate(ranked)
    ]  # fmt: skip


def _one(delta: Delta) -> dict[str, Any]:
    """The same notes for an engine of one model, from its log-probabilities."""
    top = delta.logprobs[0].top if delta.logprobs else ()
    tokens, logprobs = [token for token, _ in top], [value for _, value in top]
    return {"agents": [None], "tokens": [tokens], "logprobs": [logprobs], "kl": [0.0]}


def _entries(
    run: Run, token: int, logprob: float, ranked: Sequence[tuple[int, float]]
) -> tuple[TokenLogprob, ...] | None:
    top = run.sampling.logprobs
    return None if top is None else (TokenLogprob(token, logprob, tuple(ranked[:top])),)


def ends(run: Run) -> frozenset[int]:
    """Tokens that end an answer."""
    return run.request.engine.ending(run.sampling)


def _end(token: int, last: frozenset[int]) -> Finish | None:
    return Finish.STOP if token in last else None


async def candidates(
    run: Run, done: Sequence[int], agents: Sequence[str | None], count: int, block: int,
    reference: str = "none",
) -> list[Candidate]:  # fmt: skip
    """What all agents would say next: `count` tokens of each, or blocks of `block` tokens."""
    if block == 1:
        return await proposals(run, done, agents, count, reference)
    if reference == "none":
        return await blocks(run, done, agents, count, block)
    kl = {one.agent: one.kl for one in await proposals(run, done, agents, 1, reference)}
    found = await blocks(run, done, agents, count, block) if kl else []
    return [replace(one, kl=kl.get(one.agent, 0.0)) for one in found]


async def blocks(
    run: Run, done: Sequence[int], agents: Sequence[str | None], count: int, length: int
) -> list[Candidate]:
    """`count` blocks of up to `length` tokens, sampled from each agent; empty ones are left out.

    At temperature 0 an agent has one.
    """
    count = 1 if run.sampling.temperature == 0 else count
    sources = [_block(run, done, agent, i, length) for agent in agents for i in range(count)]
    return [one for one in await abreast(run, sources) if one.tokens]


async def _block(
    run: Run, done: Sequence[int], agent: str | None, number: int, length: int
) -> AsyncGenerator[Candidate, None]:
    tokens: list[int] = []
    entries: list[TokenLogprob] = []
    voices: list[str | None] = []
    finish = None
    purpose = ("block", len(done), agent or "", number)
    if agent in run.request.peers:
        yield await _foreign_block(run, done, agent, length, purpose)
        return
    async for delta in voiced(run, agent, done, limit=length, purpose=purpose):
        tokens += delta.tokens
        entries += delta.logprobs or ()
        chosen = zip(delta.tokens, delta.choices or (), strict=False)
        voices += [choice.policy for _, choice in chosen]
        finish = delta.finish
    told = None if run.sampling.logprobs is None else tuple(entries)
    stopped = finish if finish is Finish.STOP else None
    yield Candidate(agent, tuple(tokens), finish=stopped, entries=told, voices=tuple(voices))


async def _foreign_block(
    run: Run, done: Sequence[int], name: str | None, length: int, purpose: tuple[int | str, ...]
) -> Candidate:
    """A block of another model, in this one's tokens."""
    room = min(length, run.max_tokens - len(done))
    said = await spoken(run, peer(run, name), done, room, purpose, block=True)
    if said.full:
        run.tally.degrade(f"the context of {name!r} is full")
    elif said.broken:
        run.tally.degrade(f"{name!r} said no whole character in {said.sampled} tokens")
    return Candidate(name, said.tokens, finish=said.finish, sampled=said.sampled)


async def abreast(
    run: Run, sources: Sequence[AsyncGenerator[T, None]], *, sampling: bool = True
) -> list[T]:
    """The one item that each source gives, in their order.

    Side by side. Those that sample are branches of the run; where branches are counted they go in
    turn and in its own place.
    """
    counted = sampling and run.request.budget.max_branches is not None
    if sampling and not counted and len(sources) > 1:
        run.fork(len(sources), shared=True)
    found: dict[int, T] = {}
    waves = [[source] for source in sources] if counted else [list(sources)]
    for wave in waves:
        first = len(found)
        async with run.together(wave) as moments:
            async for at, item in moments:
                if item is not None:
                    found[first + at] = item
    return [found[at] for at in sorted(found)]

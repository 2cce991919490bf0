"""Collab: several policies, and for each token the one speaks whose token is worth most.

Source: arXiv 2503.21720. The utility of a token v of agent j is Q_j(v) - alpha·KL_j. Q_j is the
target reward of where agent j leads after v (`rollout`, the paper's), of the text as it stands
with v (`prefix_reward`), or the advantage of a target that is itself a member of the ensemble
(`implicit`, decided inside the engine). The KL of the agent's next token from the reference is the
same for all its tokens, so it arbitrates between agents only. Tokens below a tenth of an agent's
best are no candidates (arXiv 2210.15097): one estimate among many that errs is enough to take a
token that nobody would say. Ties go to the agent named first and to its likelier token. Blocks of
more than one token are sampled, and cost less per token; agents may then be separate models, even
with different tokenizers, that take turns where words begin.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from math import inf, log
from typing import Literal

from pydantic import Field as Param

from decoders.core.base import (
    Commit,
    DecodeRequest,
    Estimate,
    Null,
    Options,
    RequestError,
    decoder,
    one_row,
)
from decoders.core.choosing import foremost
from decoders.core.foreign import MORE
from decoders.core.judges import Judge
from decoders.core.policies import (
    Candidate,
    candidates,
    check_agents,
    check_rule,
    check_tokens,
    ruled,
    speakers,
)
from decoders.core.run import Run
from decoders.core.utility import QEstimator, listed, reward
from engines.base import Rule

PARAMS = "decoding.params"


class CollabOptions(Options):
    """Who speaks, what is wanted, how it is estimated, and what keeps agents near a reference."""

    utility: Literal["rollout", "prefix_reward", "implicit"] = Param(
        "rollout", description="the paper: rollout; implicit asks no monitor and no rollout"
    )
    target: Judge = Param(
        None, description="the reward that is wanted: a monitor's name or an inline check, null = "
        "the first that judges answers; with implicit a reward of the ensemble"
    )  # fmt: skip
    agents: list[str] | None = Param(
        None, min_length=1, max_length=16, description="members that speak; null = all policies"
    )
    models: list[str] | None = Param(
        None, min_length=1, max_length=16, description="agents that are models of the server, by "
        "id, in the place of members; for blocks of several tokens, and with alpha = 0"
    )  # fmt: skip
    candidates: int = Param(10, ge=1, le=64, description="of each agent (the paper's p)")
    alpha: float = Param(1.0, ge=0, le=1e6, description="weight of the divergence")
    reference: str = Param(
        "mixture", description="a member's name, `mixture` (the agents' mean) or `none`"
    )
    kl: Literal["state", "token"] = Param(
        "state", description="divergence of the agent's next token, or of the one token alone"
    )
    lookahead: int = Param(20, ge=1, le=4096, description="tokens of a rollout")
    samples: int = Param(1, ge=1, le=16, description="rollouts of each candidate")
    block: int = Param(1, ge=1, le=1024, description="tokens of a candidate; the paper: 1")
    skip_agreed: float | None = Param(
        0.99, gt=0, le=1, description="a token that each agent gives at least this probability "
        "stands without an estimate; null = never"
    )  # fmt: skip
    plausible: float = Param(
        0.1, ge=0, le=1, description="a token is no candidate whose probability is below this "
        "share of its agent's best; the paper: 0; not for blocks"
    )  # fmt: skip


def implicit(options: CollabOptions) -> Rule:
    """The rule that the engine follows."""
    names = ("target", "agents", "candidates", "alpha", "reference", "plausible")
    return Rule("collab", {name: getattr(options, name) for name in names})


def check(options: CollabOptions, request: DecodeRequest) -> None:
    """All names exist, and nothing is asked for that has no meaning with the rest."""
    wrong = None
    if options.models is not None:
        wrong = wrong_with_models(options, request)
    elif options.reference == "none" and options.alpha != 0:
        wrong = "reference", "none needs alpha = 0"
    elif options.kl == "token" and (options.block > 1 or options.utility == "implicit"):
        wrong = "kl", "token goes neither with implicit nor with blocks"
    elif options.block > 1 and options.utility == "implicit":
        wrong = "block", "implicit chooses token by token"
    elif options.utility == "implicit" and not isinstance(options.target, str):
        wrong = "target", "implicit needs a reward of the ensemble by name"
    if wrong is not None:
        raise RequestError(f"{PARAMS}.{wrong[0]}: {wrong[1]}", f"{PARAMS}.{wrong[0]}")
    if options.utility == "implicit":
        check_rule(request, implicit(options))
    elif options.models is not None:
        reward(request, options.target, f"{PARAMS}.target")
    else:
        check_agents(request, options.agents, options.reference)
        if options.block == 1:
            check_tokens(request)
        reward(request, options.target, f"{PARAMS}.target")


def wrong_with_models(options: CollabOptions, request: DecodeRequest) -> tuple[str, str] | None:
    """The parameter that has no meaning where separate models speak, and why."""
    missing = [name for name in options.others if name not in request.peers]
    twice = len(set(options.others)) < len(options.others) and "each may be named once"
    wrong = {
        "models": (missing and f"{missing[0]!r} is no model that could speak here") or twice,
        "agents": options.agents is not None and "members, which `models` are in the place of",
        "utility": options.utility == "implicit" and "implicit needs members of one ensemble",
        "block": options.block == 1 and "separate models take turns by blocks of several tokens",
        "reference": options.reference not in ("mixture", "none")
        and "separate models have no member to diverge from",
        "kl": options.kl != "state" and "separate models diverge on nothing",
        "alpha": options.alpha != 0 and "separate models have no common tokens to diverge on: 0",
    }
    if request.sampling.logprobs is not None:
        raise RequestError("logprobs: not of tokens that separate models speak", "logprobs")
    return next(((name, str(why)) for name, why in wrong.items() if why), None)


def agents_of(options: CollabOptions, request: DecodeRequest) -> tuple[str | None, ...]:
    """Who may speak."""
    return options.others or speakers(request.engine, options.agents)


def estimate(options: CollabOptions, request: DecodeRequest) -> Estimate:
    """For each token or block one step, all candidates and their rollouts, each scored."""
    if options.utility == "implicit":
        return one_row(options, request)
    most, agents = request.max_tokens, len(agents_of(options, request))
    rows = agents * options.candidates * options.samples
    # Separate models may get no further than a word.
    steps = most if options.models else -(-most // options.block)
    ahead = options.lookahead if options.utility == "rollout" else 0
    length = options.block + (MORE if options.models else 0)
    sampled = agents * options.candidates * length if options.block > 1 else 0
    tokens = steps * (1 + sampled + rows * ahead)
    abreast = rows if ahead or options.block > 1 else 1
    parts = 2 + (MORE if options.models else 0)
    return Estimate(abreast, tokens, steps * (1 + parts * rows), steps * rows)


@decoder(
    "collab",
    CollabOptions,
    source="arXiv 2503.21720",
    estimate=estimate,
    null=Null({"candidates": 1}, greedy=True),
    check=check,
)
async def collab(run: Run, options: CollabOptions) -> AsyncGenerator[Commit, None]:
    """For each token the agent speaks whose token has the highest utility."""
    if options.utility == "implicit":
        async for commit in ruled(run, implicit(options)):
            yield commit
        return
    target = reward(run.request, options.target, f"{PARAMS}.target")
    estimator = QEstimator(
        run, [target], options.utility, lookahead=options.lookahead, samples=options.samples
    )
    done, spoken = list[int](), Counter[str]()
    while found := await proposed(run, options, done):
        best, utility = found[0], None
        values = None
        if len(found) > 1 and not (options.block == 1 and agreed(found, options.skip_agreed)):
            values = await estimator.worth(done, found)
        if values is not None:
            worth = [q.means[0] - cost(one, options) for q, one in zip(values, found, strict=True)]
            place = foremost(worth)
            best, utility = found[place], worth[place]
        spoken.update(speaker or "model" for speaker in best.speakers)
        run.tally.held_back = max(run.tally.held_back, len(best.tokens))
        told = {"policies": dict(spoken), **estimator.spent}
        run.note(
            "token", tokens=best.tokens, summary=told, policy=best.speaker, kl=best.kl,
            utility=utility, **listed(run, found, values),
        )  # fmt: skip
        yield best.commit()
        done += best.tokens
        if best.finish is not None:
            return


async def proposed(run: Run, options: CollabOptions, done: Sequence[int]) -> list[Candidate]:
    """The candidates of all agents; what a divergence needs is asked for where it counts."""
    agents = agents_of(options, run.request)
    # Of one agent the mixture is the agent itself.
    needed = options.alpha > 0 and (len(agents) > 1 or options.reference != "mixture")
    reference = options.reference if needed else "none"
    found = await candidates(run, done, agents, options.candidates, options.block, reference)
    return found if options.block > 1 else plausible(found, options.plausible)


def plausible(found: Sequence[Candidate], share: float) -> list[Candidate]:
    """Candidates, best first of each agent, that have a share of their agent's best probability."""
    firsts: dict[str | None, float] = {}
    cut = log(share) if share else -inf
    return [one for one in found if one.logprob >= firsts.setdefault(one.agent, one.logprob) + cut]


def cost(candidate: Candidate, options: CollabOptions) -> float:
    """What the divergence takes from a candidate's utility."""
    if options.kl == "token":
        return options.alpha * (candidate.logprob - candidate.reference)
    return options.alpha * candidate.kl


def agreed(found: Sequence[Candidate], least: float | None) -> bool:
    """Whether every agent gives the same single token a probability of `least` or more."""
    firsts: dict[str | None, Candidate] = {}
    for one in found:
        firsts.setdefault(one.agent, one)
    if least is None:
        return False
    sure = all(one.logprob >= log(least) for one in firsts.values())
    return sure and len({one.tokens for one in firsts.values()}) == 1

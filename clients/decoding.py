"""The `decoding` field of a request's body, with completion in editors.

Written by scripts/decoding from the strategies themselves: change nothing here by hand. Knows no
server; a preset or a strategy of a later server is asked for with the plain dictionary.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, overload


class Budget(TypedDict, total=False):
    """Hard limits of one request; what is left out has none."""

    max_generated_tokens: int
    max_branches: int
    max_monitor_calls: int
    deadline_ms: int


Trace = Literal["none", "summary", "full"]
OnMonitorError = Literal["block", "continue"]


@overload
def decoding(
    strategy: Literal["plain"],
    *,
    budget: Budget | None = None,
    trace: Trace | None = None,
    stream_events: bool | None = None,
    dry_run: bool | None = None,
    on_monitor_error: OnMonitorError | None = None,
) -> dict[str, Any]:
    """The model's own answer, as sampled."""


@overload
def decoding(
    strategy: Literal["args"],
    *,
    candidates: int = ...,
    weight: float = ...,
    monitor: str | Mapping[str, Any] | None = ...,
    policy: str | None = ...,
    budget: Budget | None = None,
    trace: Trace | None = None,
    stream_events: bool | None = None,
    dry_run: bool | None = None,
    on_monitor_error: OnMonitorError | None = None,
) -> dict[str, Any]:
    """Likely tokens are scored with the text before them; logit and reward decide together."""


@overload
def decoding(
    strategy: Literal["best_of_n"],
    *,
    samples: int = ...,
    monitor: str | Mapping[str, Any] | None = ...,
    thinking_budget: int | None = ...,
    budget: Budget | None = None,
    trace: Trace | None = None,
    stream_events: bool | None = None,
    dry_run: bool | None = None,
    on_monitor_error: OnMonitorError | None = None,
) -> dict[str, Any]:
    """Several whole answers; the one that the monitor scores highest is returned."""


@overload
def decoding(
    strategy: Literal["block_diffusion"],
    *,
    length: int | None = ...,
    steps: int | None = ...,
    temperature: float | None = ...,
    rule: Literal[
        "confidence",
        "random",
        "margin",
        "entropy",
        "origin",
        "threshold",
        "factor",
        "entropy_bound",
        "saber",
        "saber_code",
        "edit",
    ] = ...,
    threshold: float | None = ...,
    factor: float | None = ...,
    gamma: float | None = ...,
    n: int | None = ...,
    divisor: int | None = ...,
    edit: float | None = ...,
    rounds: int | None = ...,
    cache: Literal["none", "prefix", "dual"] = ...,
    refresh: int | None = ...,
    guidance: float = ...,
    early_stop: bool = ...,
    eos: Literal["free", "last", "never"] = ...,
    block_length: int = ...,
    stream: Literal["prefix", "block"] = ...,
    budget: Budget | None = None,
    trace: Trace | None = None,
    stream_events: bool | None = None,
    dry_run: bool | None = None,
    on_monitor_error: OnMonitorError | None = None,
) -> dict[str, Any]:
    """One canvas is filled block by block along one schedule."""


@overload
def decoding(
    strategy: Literal["collab"],
    *,
    utility: Literal["rollout", "prefix_reward", "implicit"] = ...,
    target: str | Mapping[str, Any] | None = ...,
    agents: Sequence[str] | None = ...,
    models: Sequence[str] | None = ...,
    candidates: int = ...,
    alpha: float = ...,
    reference: str = ...,
    kl: Literal["state", "token"] = ...,
    lookahead: int = ...,
    samples: int = ...,
    block: int = ...,
    skip_agreed: float | None = ...,
    plausible: float = ...,
    budget: Budget | None = None,
    trace: Trace | None = None,
    stream_events: bool | None = None,
    dry_run: bool | None = None,
    on_monitor_error: OnMonitorError | None = None,
) -> dict[str, Any]:
    """For each token the agent speaks whose token has the highest utility."""


@overload
def decoding(
    strategy: Literal["controlled_decoding"],
    *,
    samples: int = ...,
    block: int = ...,
    monitor: str | Mapping[str, Any] | None = ...,
    policy: str | None = ...,
    budget: Budget | None = None,
    trace: Trace | None = None,
    stream_events: bool | None = None,
    dry_run: bool | None = None,
    on_monitor_error: OnMonitorError | None = None,
) -> dict[str, Any]:
    """Several blocks are sampled, the one that the monitor likes best stands, and on it goes."""


@overload
def decoding(
    strategy: Literal["extended_thinking"],
    *,
    mode: Literal["wait", "exact", "minimum"] = ...,
    waits: int | None = ...,
    phrase: str = ...,
    thinking_budget: int | None = ...,
    budget: Budget | None = None,
    trace: Trace | None = None,
    stream_events: bool | None = None,
    dry_run: bool | None = None,
    on_monitor_error: OnMonitorError | None = None,
) -> dict[str, Any]:
    """One trace thinks on: "Wait" where it would end, or a set number of tokens."""


@overload
def decoding(
    strategy: Literal["genarm"],
    *,
    base: str | None = ...,
    rewards: Sequence[str] | None = ...,
    alphas: Sequence[float] | None = ...,
    budget: Budget | None = None,
    trace: Trace | None = None,
    stream_events: bool | None = None,
    dry_run: bool | None = None,
    on_monitor_error: OnMonitorError | None = None,
) -> dict[str, Any]:
    """Each token is drawn from a base policy times reward models that are policies themselves."""


@overload
def decoding(
    strategy: Literal["hex"],
    *,
    length: int | None = ...,
    steps: int | None = ...,
    temperature: float | None = ...,
    rule: Literal[
        "confidence",
        "random",
        "margin",
        "entropy",
        "origin",
        "threshold",
        "factor",
        "entropy_bound",
        "saber",
        "saber_code",
        "edit",
    ] = ...,
    threshold: float | None = ...,
    factor: float | None = ...,
    gamma: float | None = ...,
    n: int | None = ...,
    divisor: int | None = ...,
    edit: float | None = ...,
    rounds: int | None = ...,
    cache: Literal["none", "prefix", "dual"] = ...,
    refresh: int | None = ...,
    guidance: float = ...,
    early_stop: bool = ...,
    eos: Literal["free", "last", "never"] = ...,
    blocks: Sequence[int] | None = ...,
    seeds: int = ...,
    answer: Literal["auto", "number", "choice", "json", "text"] = ...,
    select: Literal["vote", "nll", "vote_nll"] = ...,
    vote_early: bool = ...,
    budget: Budget | None = None,
    trace: Trace | None = None,
    stream_events: bool | None = None,
    dry_run: bool | None = None,
    on_monitor_error: OnMonitorError | None = None,
) -> dict[str, Any]:
    """Canvases filled in blocks of several sizes vote on the answer."""


@overload
def decoding(
    strategy: Literal["mod"],
    *,
    policies: Sequence[str] | None = ...,
    weights: Sequence[float] | None = ...,
    budget: Budget | None = None,
    trace: Trace | None = None,
    stream_events: bool | None = None,
    dry_run: bool | None = None,
    on_monitor_error: OnMonitorError | None = None,
) -> dict[str, Any]:
    """Each token is drawn from the weighted product of several policies."""


@overload
def decoding(
    strategy: Literal["parallel_thinking"],
    *,
    paths: int = ...,
    thinking_budget: int | None = ...,
    answer: Literal["auto", "number", "choice", "json", "text"] = ...,
    early_stop: bool = ...,
    stop_confidence: float | None = ...,
    weights: str | Mapping[str, Any] | None = ...,
    path: Mapping[str, Any] | None = ...,
    budget: Budget | None = None,
    trace: Trace | None = None,
    stream_events: bool | None = None,
    dry_run: bool | None = None,
    on_monitor_error: OnMonitorError | None = None,
) -> dict[str, Any]:
    """Independent paths share the thinking budget; the majority's answer is returned."""


@overload
def decoding(
    strategy: Literal["safethink"],
    *,
    monitor: str | None = ...,
    threshold: float | None = ...,
    phrase: str | Sequence[str] = ...,
    max_steered_steps: int | None = ...,
    counted: Literal["steps", "interventions"] = ...,
    resample_temperature: float | None = ...,
    max_resamples: int = ...,
    on_exhaust: Literal["best", "last", "refuse"] = ...,
    keep_phrase: bool = ...,
    late: Literal["accept", "steer", "refuse"] = ...,
    check_before_answer: bool = ...,
    check_answer: bool = ...,
    boundaries: Sequence[Literal["paragraph", "heading", "line"]] = ...,
    max_step_tokens: int = ...,
    optimistic: bool = ...,
    budget: Budget | None = None,
    trace: Trace | None = None,
    stream_events: bool | None = None,
    dry_run: bool | None = None,
    on_monitor_error: OnMonitorError | None = None,
) -> dict[str, Any]:
    """Steps judged unsafe are thrown away and redone behind "Wait, think safely"."""


@overload
def decoding(
    strategy: Literal["sitalign"],
    *,
    utility: Literal["rollout", "prefix_reward", "implicit"] = ...,
    primary: str | Mapping[str, Any] | None = ...,
    constrained: Sequence[str | Mapping[str, Any] | None] = ...,
    thresholds: Sequence[float] = ...,
    units: Literal["raw", "calibrated"] = ...,
    base: str | None = ...,
    candidates: int = ...,
    alpha: float = ...,
    lambda_solver: Literal["exact", "newton", "expansion"] = ...,
    lookahead: int = ...,
    samples: int = ...,
    caution: float = ...,
    block: int = ...,
    budget: Budget | None = None,
    trace: Trace | None = None,
    stream_events: bool | None = None,
    dry_run: bool | None = None,
    on_monitor_error: OnMonitorError | None = None,
) -> dict[str, Any]:
    """A base policy is tilted to a primary reward while others are held above their thresholds."""


def decoding(
    strategy: str,
    *,
    budget: Budget | None = None,
    trace: Trace | None = None,
    stream_events: bool | None = None,
    dry_run: bool | None = None,
    on_monitor_error: OnMonitorError | None = None,
    **params: Any,
) -> dict[str, Any]:
    """The `extra_body` that asks for `strategy` with `params`; what is None is left to the server.

    `trace` is how much of what happened the answer reports, `stream_events` sends progress while
    streaming, `dry_run` answers with the estimated cost and generates nothing, `on_monitor_error`
    "block" refuses what a failing monitor could not judge even where the server would go on.
    """
    common = {
        "budget": budget,
        "trace": trace,
        "stream_events": stream_events,
        "dry_run": dry_run,
        "on_monitor_error": on_monitor_error,
    }
    chosen = {name: value for name, value in common.items() if value is not None}
    return {"decoding": {"strategy": strategy, "params": params, **chosen}}

"""Rules at work in the worker: the rows of one step, those that share a rule together.

A row whose rule fails stays as the first member left it and is marked; nothing raised here may
reach vLLM, since that would end the engine for everybody. It knows neither of vLLM's two runners.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from engines.rules.core.base import PolicyRule, Step, Verdict, Where, biases, where
from engines.rules.core.cast import Cast, Parameters, RuleFault
from engines.rules.core.registry import checked, find
from engines.vllm.ensemble.model import Hidden
from engines.vllm.ensemble.trace import Batch, Record

FIELD = "rule"  # of SamplingParams.extra_args
GREEDY = 1e-5  # vLLM's own bound
Group = tuple[str, str, bool, bool]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What a request asks of its rows: a rule, and the key that its trace goes by."""

    rule: PolicyRule
    parameters: Parameters
    greedy: bool
    trace: str
    top: int | None
    bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def group(self) -> Group:
        """Rows of the same group are decided at once; those without a bias pay for none."""
        return self.rule.name, self.parameters.model_dump_json(), self.greedy, bool(self.bias)

    @classmethod
    def by(cls, params: Any, cast: Cast) -> Self | None:
        """What vLLM's SamplingParams ask for; None without a rule. RuleFault if it does not fit."""
        given = (params.extra_args or {}).get(FIELD)
        if given is None:
            return None
        parameters = checked(given["name"], given["parameters"], cast)
        greedy = params.temperature < GREEDY
        bias = params.logit_bias or {}
        return cls(find(given["name"]), parameters, greedy, given["trace"], params.logprobs, bias)


def form(params: Any) -> None:
    """Refuses a rule that no ensemble could follow. ValueError; names are checked elsewhere."""
    given = (params.extra_args or {}).get(FIELD)
    if given is None:
        return
    if not isinstance(given, Mapping) or {*given} != {"name", "parameters", "trace"}:
        raise ValueError(f"extra_args.{FIELD}: takes name, parameters and trace")
    if not isinstance(given["trace"], str) or not isinstance(given["parameters"], Mapping):
        raise ValueError(f"extra_args.{FIELD}: trace is a string, parameters are a mapping")
    if params.n != 1:
        raise ValueError("n: one sequence for a request with a rule")
    found = find(given["name"])
    # Members are not known here, so only forms: types, ranges and unknown names.
    found.parameters.model_validate_json(json.dumps(dict(given["parameters"])))


@dataclass(frozen=True)
class Row:
    """A row of the logits: what is asked of it, and the position of the token it is to give."""

    at: int
    asked: Asked
    position: int


def decide(cast: Cast, hidden: Hidden | None, logits: Tensor, rows: Sequence[Row]) -> Batch:
    """Writes what the rules say into `logits` [rows of the step, vocabulary]; gives the trace."""
    groups: dict[Group, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.at):
        groups.setdefault(row.asked.group, []).append(row)
    batch: Batch = []
    for group in groups.values():
        batch += _guarded(cast, hidden, logits, group)
    return batch


def _guarded(cast: Cast, hidden: Hidden | None, logits: Tensor, rows: Sequence[Row]) -> Batch:
    """One group; where it fails together, each row alone, so that one harms no other."""
    try:
        records: list[Record] = _decided(cast, hidden, logits, rows)
    except Exception as fault:
        if len(rows) > 1:
            return [one for row in rows for one in _guarded(cast, hidden, logits, [row])]
        reason = f"rule {rows[0].asked.rule.name!r} failed: {type(fault).__name__}: {fault}"
        log.error(reason)
        records = [{"policy": cast.members[0], "degraded": reason}]
    return [(row.asked.trace, row.position, one) for row, one in zip(rows, records, strict=True)]


def _decided(
    cast: Cast, hidden: Hidden | None, logits: Tensor, rows: Sequence[Row]
) -> list[Record]:
    """Asks the rule, checks its verdict, and only then writes."""
    if hidden is None or len(hidden.first) != len(logits):
        raise RuleFault("the policies' logits of this step are not at hand")
    at = where([row.at for row in rows], logits)
    asked = rows[0].asked
    each = masked(hidden, logits[at], at)
    step = Step(cast, each, asked.greedy, biases([row.asked.bias for row in rows], each[0]))
    verdict = asked.rule.choose(step, asked.parameters)
    _check(verdict, step)
    records = told(step, verdict, rows)
    write(logits, at, verdict, step)
    return records


def masked(hidden: Hidden, now: Tensor, at: Where) -> Tensor:
    """All policies' logits with the bans that vLLM has put on the first one's."""
    logits = hidden.logits(at)
    if not torch.equal(now.float(), logits[0]):
        logits.masked_fill_(now.isneginf(), float("-inf"))
    return logits


def _check(verdict: Verdict, step: Step) -> None:
    given, ids, tokens = verdict.logits, verdict.among, verdict.tokens
    _places(verdict, step)
    shape = step.logits.shape[1:] if ids is None else ids.shape
    if given is not None and given.shape != shape:
        raise RuleFault(f"its logits are {tuple(given.shape)}, not {tuple(shape)}")
    # One number tells of a whole row: of its logits the highest, of a policy's the normalizer.
    heights = verdict.own(step.normalizers)[:, 0] if given is None else given.amax(-1)
    if not bool(heights.isfinite().all()):
        raise RuleFault("its logits are no distribution")
    if tokens is not None and bool(step.logits[0].gather(-1, tokens[:, None]).isneginf().any()):
        raise RuleFault("it settled a token that is forbidden")


def _places(verdict: Verdict, step: Step) -> None:
    """RuleFault unless every row has its ids and each is one that there is.

    What an index out of range does on a GPU cannot be caught.
    """
    policies, rows, words = step.logits.shape
    for what, ids, dims, most in (
        ("speakers", verdict.speakers, 1, policies),
        ("tokens", verdict.tokens, 1, words),
        ("candidates", verdict.among, 2, words),
    ):
        if ids is None:
            continue
        if ids.dtype != torch.long or ids.dim() != dims or len(ids) != rows:
            raise RuleFault(f"its {what} are {ids.dtype} {tuple(ids.shape)}, for {rows} rows")
        if bool(((ids < 0) | (ids >= most)).any()):
            raise RuleFault(f"its {what} are not all below {most}")


def write(logits: Tensor, at: Where, verdict: Verdict, step: Step) -> None:
    """The rows `at` become what is drawn from: a settled token alone, a few tokens, or all."""
    if verdict.tokens is not None:
        few = verdict.tokens[:, None]
        values = torch.zeros_like(few, dtype=logits.dtype)
    elif verdict.among is not None and verdict.logits is not None:
        few, values = verdict.among, verdict.logits.to(logits.dtype)
    else:
        logits[at] = verdict.spoken(step).to(logits.dtype)
        return
    logits[at] = float("-inf")
    if isinstance(at, slice):
        logits[at].scatter_(-1, few, values)
    else:
        logits[at[:, None], few] = values


def told(step: Step, verdict: Verdict, rows: Sequence[Row]) -> list[Record]:
    """A record for each row: who spoke, why, and a settled token's own log-probability."""
    speakers = None if verdict.speakers is None else verdict.speakers.tolist()
    settled = [] if verdict.tokens is None else verdict.tokens.tolist()
    asks = bool(settled) and any(row.asked.top is not None for row in rows)
    spoken = verdict.spoken(step) if asks else None
    records: list[Record] = []
    for i, row in enumerate(rows):
        notes = {name: values[i] for name, values in verdict.notes.items()}
        who = None if speakers is None else step.cast.members[speakers[i]]
        record: Record = {"policy": who, "notes": notes}
        if spoken is not None and row.asked.top is not None:
            record["logprob"] = entry(spoken[i], settled[i], row.asked.top)
        records.append(record)
    return records


def entry(logits: Tensor, token: int, top: int) -> list[Any]:
    """[token, its log-probability, [[other, log-probability], ...]] in the row that spoke."""
    row = logits.log_softmax(-1)
    best = row.topk(min(top, len(row)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [token, float(row[token]), [[i, p] for i, p in pairs if p > float("-inf")]]

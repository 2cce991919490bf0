"""Rules over the rows of a step, and the processor under both of vLLM's runners, without an engine.

The second runner needs a GPU. Its loader, its validation and its batch layout are real here; the
model behind is a table of hidden states.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.v1.sample.logits_processor import (
    BatchUpdate,
    build_logitsprocs,
    validate_logits_processors_parameters,
)
from vllm.v1.worker.gpu.sample.logits_processor import (
    LogitsContext,
    build_custom_logits_processors,
    build_custom_logits_processors_params_validator,
)

from engines.rules.core.base import PolicyRule, Step, Verdict
from engines.rules.core.cast import Cast, Parameters, Reward
from engines.vllm.ensemble import rows as module
from engines.vllm.ensemble.engine import PROCESSOR
from engines.vllm.ensemble.model import Hidden, read, shelf, spelled
from engines.vllm.ensemble.processors import PolicyProcessor
from engines.vllm.ensemble.rows import Asked, Row, decide
from engines.vllm.ensemble.trace import Receiver, Sender, tellable

MEMBERS = ("one", "two")
CAST = Cast(MEMBERS, None, {"wish": Reward(member="two", reference="one")})
WIDTH = 12


class Model:
    """Hidden states that are logits already."""

    vocabulary = WIDTH

    def members(self) -> list[Any]:
        return [SimpleNamespace(compute_logits=lambda part: part) for _ in MEMBERS]


def hidden(rows: int, places: list[int] | None = None) -> Hidden:
    parts = torch.randn(2, rows, WIDTH, generator=torch.Generator().manual_seed(1))
    at = torch.tensor(places if places is not None else [4] * rows)
    model: Any = Model()
    return Hidden(model, tuple(parts), parts[0].clone(), at)


def asking(name: str = "only", parameters: dict[str, Any] | None = None, **more: Any) -> Any:
    given = {"policy": "two"} if parameters is None else parameters
    return SamplingParams(
        temperature=0,
        extra_args={"rule": {"name": name, "parameters": given, "trace": "k"}},
        **more,
    )


def asked(**kinds: Any) -> Asked:
    found = Asked.by(asking(**kinds), CAST)
    assert found is not None
    return found


def broken(step: Step, parameters: Parameters) -> Verdict:
    """Fails for the row whose second policy likes token 0 best, and so for its whole group."""
    if bool((step.logits[1].argmax(-1) == 0).any()):
        raise RuntimeError("no such thing")
    return Verdict(step.logits[1])


BROKEN = Asked(PolicyRule("broken", Parameters, broken, ""), Parameters(), True, "b", None)


def wrong(logits: Any = None, tokens: Any = None) -> Asked:
    def choose(step: Step, parameters: Parameters) -> Verdict:
        given = step.logits[0] if logits is None else logits(step.logits[0])
        return Verdict(given, tokens=None if tokens is None else torch.tensor(tokens))

    return Asked(PolicyRule("wrong", Parameters, choose, ""), Parameters(), True, "w", None)


def by(verdict: Verdict) -> Asked:
    """A rule that always says this."""
    made = PolicyRule("said", Parameters, lambda step, parameters: verdict, "")
    return Asked(made, Parameters(), True, "s", 2)


def among(ids: list[list[int]], dtype: torch.dtype = torch.long) -> Asked:
    """A rule that always lets draw from these."""
    return by(Verdict(torch.zeros(len(ids), len(ids[0])), among=torch.tensor(ids, dtype=dtype)))


def test_rows_without_a_rule_stay_as_they_are() -> None:
    held = hidden(3)
    logits = held.first.clone()
    [(key, position, record)] = decide(CAST, held, logits, [Row(1, asked(), 5)])
    assert (key, position, record["policy"]) == ("k", 5, "two")
    assert torch.equal(logits[1], held.parts[1][1])
    assert torch.equal(logits[[0, 2]], held.first[[0, 2]])


def test_a_row_that_fails_falls_back_alone() -> None:
    held = hidden(4)
    held.parts[1][2] = torch.tensor([9.0] + [0.0] * (WIDTH - 1))
    logits = held.first.clone()
    batch = decide(CAST, held, logits, [Row(at, BROKEN, 5) for at in range(4)])
    assert [record.get("degraded") is None for _, _, record in batch] == [True, True, False, True]
    assert "no such thing" in batch[2][2]["degraded"]
    assert torch.equal(logits[2], held.first[2])
    assert torch.equal(logits[[0, 1, 3]], held.parts[1][[0, 1, 3]])


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (wrong(lambda row: row[:, :-1]), "its logits are"),
        (wrong(lambda row: row * torch.nan), "no distribution"),
        (wrong(lambda row: row - torch.inf), "no distribution"),
        (wrong(tokens=[3]), "forbidden"),
        (wrong(tokens=[99]), "not all below"),
        (wrong(tokens=[-1]), "not all below"),
        (wrong(tokens=[[5]]), "its tokens are"),
        (wrong(tokens=[5, 5]), "its tokens are"),
        (among([[99, 2]]), "not all below"),
        (among([[-1, 2]]), "not all below"),
        (among([[5, 2], [5, 2]]), "its candidates are"),
        (among([[5, 2]], torch.int32), "its candidates are"),
        (by(Verdict(speakers=torch.tensor([2]))), "not all below"),
    ],
)
def test_a_verdict_is_checked_before_it_is_written(rule: Asked, reason: str) -> None:
    held = hidden(1)
    logits = held.first.clone()
    logits[0, 3] = -torch.inf
    before = logits.clone()
    [(_, _, record)] = decide(CAST, held, logits, [Row(0, rule, 5)])
    assert reason in record["degraded"]
    assert torch.equal(logits, before)


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(tokens=torch.tensor([3]), speakers=torch.tensor([0, 0])),
        Verdict(tokens=torch.tensor([3, 3]), speakers=torch.tensor([0])),
        Verdict(torch.zeros(1, 2), among=torch.tensor([[1, 2]])),
    ],
)
@pytest.mark.parametrize("places", [[0, 1], [0, 2]])
def test_a_verdict_of_fewer_rows_is_written_to_none(verdict: Verdict, places: list[int]) -> None:
    held = hidden(3)
    logits = held.first.clone()

    def choose(step: Step, parameters: Parameters) -> Verdict:
        if step.logits.shape[1] == 1:
            raise RuntimeError("alone")
        return verdict

    rule = Asked(PolicyRule("short", Parameters, choose, ""), Parameters(), True, "s", None)
    batch = decide(CAST, held, logits, [Row(at, rule, 5) for at in places])
    assert all("alone" in record["degraded"] for _, _, record in batch)
    assert torch.equal(logits, held.first)


@pytest.mark.parametrize("places", [[0, 1, 2, 3], [1, 2], [3, 0]])
def test_of_a_few_tokens_nothing_else_is_drawn(places: list[int]) -> None:
    held = hidden(4)
    logits = held.first.clone()
    among = torch.tensor([[5, 2], [7, 0], [1, 3], [2, 9]])[: len(places)]
    few = by(Verdict(torch.tensor([[-0.5, -1.5]] * len(places)), among=among))
    batch = decide(CAST, held, logits, [Row(at, few, 5) for at in places])
    assert not any("degraded" in record for _, _, record in batch)
    for at, ids in zip(sorted(places), among.tolist(), strict=True):
        assert logits[at, ids].tolist() == [-0.5, -1.5]
        assert torch.isneginf(logits[at]).sum() == WIDTH - 2
    rest = [at for at in range(4) if at not in places]
    assert torch.equal(logits[rest], held.first[rest])


def test_a_settled_token_has_its_speakers_log_probability() -> None:
    held = hidden(2)
    logits = held.first.clone()
    settles = by(Verdict(tokens=torch.tensor([3, 4]), speakers=torch.tensor([1, 0])))
    batch = decide(CAST, held, logits, [Row(at, settles, 5) for at in range(2)])
    for row, (token, speaker) in enumerate([(3, 1), (4, 0)]):
        own = held.parts[speaker][row].log_softmax(-1)
        assert batch[row][2]["policy"] == MEMBERS[speaker]
        assert batch[row][2]["logprob"][:2] == [token, pytest.approx(float(own[token]))]
        assert logits[row].argmax() == token
        assert torch.isneginf(logits[row]).sum() == WIDTH - 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_policy_without_numbers_does_not_speak(value: float) -> None:
    held = hidden(1)
    held.parts[1][0, 8] = value
    logits = held.first.clone()
    settles = by(Verdict(tokens=torch.tensor([3]), speakers=torch.tensor([1])))
    [(_, _, record)] = decide(CAST, held, logits, [Row(0, settles, 5)])
    assert "no distribution" in record["degraded"]
    assert torch.equal(logits, held.first)


REWARDS = {
    "wish": Reward(member="two", reference="one"),
    "safe": Reward(member="one", reference="two"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sitalign", {"primary": "wish", "constrained": ["safe"], "deltas": [0.0]}),
        ("collab", {"target": "wish", "agents": ["one"]}),
        ("collab", {"target": "wish", "agents": ["one"], "reference": "none", "alpha": 0.0}),
        ("propose", {"agents": ["one", "two"], "reference": "mixture"}),
        ("propose", {"agents": ["one", "two"]}),
        ("propose", {"agents": ["one"], "reference": "two"}),
    ],
)
def test_a_member_without_numbers_costs_its_own_row_alone(
    name: str, parameters: dict[str, Any], value: float
) -> None:
    asking = {"name": name, "parameters": parameters, "trace": "k"}
    cast = Cast(MEMBERS, None, REWARDS)
    rule = Asked.by(SamplingParams(temperature=1, extra_args={"rule": asking}), cast)
    assert rule is not None
    held = hidden(2)
    held.parts[1][0, 8] = value
    found = decide(cast, held, held.first.clone(), [Row(0, rule, 5), Row(1, rule, 6)])
    degraded = {position: record.get("degraded") for _, position, record in found}
    assert "finite" in str(degraded[5]) and not degraded[6]


def test_a_bias_is_on_who_speaks_and_a_ban_on_all() -> None:
    """One half of the group's rows has the bias, and each the log-probabilities of its own."""
    held = hidden(4)
    logits = held.first.clone()
    logits[:, 7] = -torch.inf
    logits[[1, 3], 4] += 2.5
    cast = Cast(MEMBERS, None, REWARDS)
    parameters = {"base": "one", "rewards": ["wish"], "alphas": [2.0]}
    rows = []
    for at in range(4):
        params = asking("genarm", parameters, logit_bias={4: 2.5} if at % 2 else None)
        rule = Asked.by(params, cast)
        assert rule is not None
        rows.append(Row(at, rule, 5))
    batch = decide(cast, held, logits, rows)
    assert not any("degraded" in record for _, _, record in batch)
    for at in range(4):
        own = [part[at].double().clone() for part in held.parts]
        for row in own:
            row[7] = -torch.inf
        wanted = own[0].log_softmax(-1) + 2 * own[1].log_softmax(-1)
        wanted[4] += 2.5 if at % 2 else 0.0
        assert logits[at].tolist() == pytest.approx(wanted.tolist(), abs=1e-5)


def test_a_verdict_of_nobody_is_refused() -> None:
    held = hidden(1)
    [(_, _, record)] = decide(CAST, held, held.first.clone(), [Row(0, by(Verdict()), 5)])
    assert "neither logits nor speakers" in record["degraded"]


def test_a_step_without_the_policies_logits_degrades() -> None:
    held = hidden(2)
    [(_, _, record)] = decide(CAST, None, held.first.clone(), [Row(0, asked(), 5)])
    assert record["policy"] == "one"
    assert "not at hand" in record["degraded"]


def test_positions_survive_half_precision() -> None:
    places = torch.tensor([0, 1, 127, 128, 16_383, 131_071, 2_000_000])
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        assert torch.equal(read(spelled(places).to(kind)), places)


# ---- under both runners


class Ear:
    """In the place of the socket."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def send(self, batch: Any) -> None:
        self.heard += batch


def config() -> Any:
    rewards = {name: made.model_dump() for name, made in CAST.rewards.items()}
    parts = {"members": list(MEMBERS), "reference": None, "rewards": rewards}
    return SimpleNamespace(
        additional_config={"satisfice": {**parts, "trace": "inproc://nobody"}},
        speculative_config=None,
    )


def first_runner() -> PolicyProcessor:
    scheduler = SimpleNamespace(max_num_seqs=8)
    whole = SimpleNamespace(**vars(config()), scheduler_config=scheduler)
    built = build_logitsprocs(whole, torch.device("cpu"), False, False, [PROCESSOR])
    [made] = [one for one in built.all if isinstance(one, PolicyProcessor)]
    assert made in list(built.non_argmax_invariant)
    return made


def second_runner() -> PolicyProcessor:
    named = ("device", "max_num_reqs", "vocab_size", "all_token_ids", "prompt_len", "total_len")
    states: Any = SimpleNamespace(
        **dict.fromkeys(named), prefill_len=SimpleNamespace(np=np.array([5, 5, 9, 5]))
    )
    [made] = build_custom_logits_processors(config(), states, False, [PROCESSOR])
    assert isinstance(made, PolicyProcessor)
    return made


def heard(processor: PolicyProcessor) -> Ear:
    ear: Any = Ear()
    processor.sender = ear
    return ear  # type: ignore[no-any-return]


def layout(slots: list[int], places: list[int]) -> LogitsContext:
    at = torch.tensor(slots)
    nothing = torch.zeros_like(at)
    return LogitsContext(
        at, at, np.array(slots), nothing, nothing, torch.tensor(places), np.array(places) + 1
    )


def through_first(logits: Tensor) -> Any:
    processor = first_runner()
    ear = heard(processor)
    # Rows: a decode with a rule, one in the middle of its prompt, one without a rule.
    added = [
        (0, asking(), [1, 2, 3], [7, 7]),
        (1, asking(), [1] * 9, []),
        (2, SamplingParams(), [1] * 5, []),
    ]
    processor.update_state(BatchUpdate(3, [], added, []))
    processor.apply(logits)
    return ear.heard


def through_second(logits: Tensor) -> Any:
    processor = second_runner()
    ear = heard(processor)
    kept = [processor.add_request(slot, p) for slot, p in
            ((3, asking()), (2, asking()), (0, SamplingParams()))]  # fmt: skip
    assert kept == [True, True, False]
    processor.apply(logits, layout([3, 2, 0], [4, 4, 4]))
    return ear.heard


@pytest.mark.parametrize("through", [through_first, through_second])
def test_both_runners_decide_the_same_rows(through: Any) -> None:
    held = hidden(3)
    shelf.step = held
    logits = held.first.clone()
    told = through(logits)
    assert [(key, position, record["policy"]) for key, position, record in told] == [
        ("k", 5, "two")
    ]
    assert torch.equal(logits[0], held.parts[1][0])
    assert torch.equal(logits[1:], held.first[1:])
    assert shelf.step is None


def test_a_slot_forgets_its_last_occupant() -> None:
    processor = second_runner()
    heard(processor)
    assert processor.add_request(3, asking())
    assert not processor.add_request(3, SamplingParams())
    held = hidden(1)
    shelf.step = held
    logits = held.first.clone()
    processor.apply(logits, layout([3], [4]))
    assert torch.equal(logits, held.first)


def test_nothing_that_goes_wrong_in_a_step_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*parts: Any) -> None:
        raise RuntimeError("anything")

    monkeypatch.setattr("engines.vllm.ensemble.processors.decide", fails)
    processor = second_runner()
    ear = heard(processor)
    processor.add_request(3, asking())
    held = hidden(1)
    shelf.step = held
    logits = held.first.clone()
    assert torch.equal(processor.apply(logits, layout([3], [4])), held.first)
    [(key, position, record)] = ear.heard
    assert (key, position, record["policy"]) == ("k", 5, "one")
    assert "anything" in record["degraded"]


def test_notes_that_cannot_be_spelled_cost_no_other_row_its_own() -> None:
    good, bad = {"policy": "two", "notes": {"utility": 1.0}}, {"policy": "two", "notes": object()}
    assert tellable("a", 5, good) == ("a", 5, good)
    key, position, told = tellable("b", 6, bad)
    assert (key, position, told["policy"]) == ("b", 6, "two")
    assert "cannot be told" in told["degraded"]


async def test_a_step_is_told_also_where_one_rules_notes_are_nothing(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/trace"
    receiver = Receiver(address)
    for key in "ab":
        receiver.open(key)
    sender = Sender(address)
    sender.send([("a", 5, {"policy": "two"}), ("b", 5, {"policy": "two", "notes": object()})])
    assert await receiver.take("a", [5]) == [{"policy": "two"}]
    [told] = await receiver.take("b", [5])
    assert "cannot be told" in told["degraded"]
    await receiver.close()


@pytest.mark.parametrize(
    ("params", "told"),
    [
        (asking("nothing"), "no policy rule"),
        (asking("only", {"policy": 3}), "policy"),
        (asking("only", {}), "policy"),
        (asking("collab", {"target": "wish", "more": 1}), "more"),
        (SamplingParams(extra_args={"rule": 5}), "takes name"),
        (SamplingParams(extra_args={"rule": {"name": "only"}}), "takes name"),
        (SamplingParams(n=2, extra_args=asking().extra_args), "one sequence"),
    ],
)
def test_both_runners_refuse_at_admission(params: Any, told: str) -> None:
    with pytest.raises(VLLMValidationError, match=told):
        validate_logits_processors_parameters([PROCESSOR], params)
    with pytest.raises(VLLMValidationError, match=told):
        build_custom_logits_processors_params_validator([PROCESSOR])(params)


def test_what_fits_is_let_in() -> None:
    for params in (asking(), SamplingParams(), SamplingParams(extra_args={"other": 1})):
        validate_logits_processors_parameters([PROCESSOR], params)
        build_custom_logits_processors_params_validator([PROCESSOR])(params)
    assert module.FIELD == "rule"

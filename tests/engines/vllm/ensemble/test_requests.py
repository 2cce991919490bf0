"""What an ensemble does with requests: refuses by name, survives bad rows, draws, forgets."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.base import Engine, EngineError, Rule, Sampling, UnsupportedError
from engines.registry import build
from engines.vllm.ensemble.engine import VllmEnsemble
from tests.contracts.test_engine_agreement import SURE, goodness
from tests.engines.vllm.ensemble.calls import prompts, ruled, same, under
from tests.policies import ENGINE_ARGS, MEMBERS, RULES

pytestmark = pytest.mark.vllm
PROMPT = list(range(40, 60))
DRAWS = 600
FLAT = {"policies": ["math", "prose"], "weights": [0.5, 0.5]}


@pytest.mark.parametrize(
    ("rule", "param"),
    [
        (Rule("nothing"), "rule"),
        (Rule("only", {"policy": "nobody"}), "policy"),
        (Rule("collab", {"target": "nothing"}), "target"),
        (Rule("collab", {"target": "wish", "candidates": 0}), "candidates"),
        (Rule("sitalign", {"primary": "wish", "alpha": -1.0}), "alpha"),
        (Rule("mod", {"policies": ["math"], "weights": [2.0]}), "weights"),
        (Rule("genarm", {"base": "math", "rewards": ["raw"], "alphas": [1.0], "x": {}}), "x"),
    ],
)
async def test_what_no_worker_could_follow_is_refused_by_name(
    ensemble: Engine, rule: Rule, param: str
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        await ruled(ensemble, PROMPT, Sampling(rule=rule))
    assert caught.value.param == param
    assert ensemble.running == 0


async def test_a_rule_bears_no_penalties(ensemble: Engine) -> None:
    with pytest.raises(UnsupportedError) as caught:
        await ruled(ensemble, PROMPT, under("mod").but(presence_penalty=1.0))
    assert caught.value.param == "presence_penalty"


async def test_an_engine_of_one_model_knows_no_rule(vllm: Engine) -> None:
    with pytest.raises(UnsupportedError, match="no ensemble"):
        await ruled(vllm, PROMPT, under("mod"))


async def test_a_row_that_fails_is_marked_and_harms_no_other(
    ensemble: Engine, reference_ensemble: Engine
) -> None:
    """Powers without bound leave no token possible: the first member speaks in the rule's place."""
    broken = under("genarm", alphas=[1e300])
    tasks = [ruled(ensemble, ids, broken if at % 2 else under("mod")) for at, ids in
             enumerate(prompts(12))]  # fmt: skip
    found = await asyncio.gather(*tasks)
    for at, ids in enumerate(prompts(12)):
        if at % 2:
            assert {choice.policy for choice in found[at].choices} == {"math"}
            assert all("no distribution" in (c.degraded or "") for c in found[at].choices)
            wanted = await ruled(reference_ensemble, ids, under(None))
            found[at].choices.clear()
        else:
            assert not any(choice.degraded for choice in found[at].choices)
            wanted = await ruled(reference_ensemble, ids, under("mod"))
        assert same(found[at], wanted)
    await ensemble.check()


async def test_requests_without_a_rule_are_any_engines(ensemble: Engine) -> None:
    async with aclosing(ensemble.generate(PROMPT, under(None), 5)) as deltas:
        assert all([delta.choices is None async for delta in deltas])


async def test_choices_are_forgotten_with_their_request(ensemble: Engine) -> None:
    assert isinstance(ensemble, VllmEnsemble)
    async with aclosing(ensemble.generate(PROMPT, under("collab"), 300)) as deltas:
        await anext(deltas)
        assert ensemble.traced == 1
    assert ensemble.traced == 0


async def test_bans_biases_and_least_lengths_bind_rules_too(ensemble: Engine) -> None:
    free = await ruled(ensemble, PROMPT, under("collab"))
    banned = tuple(sorted(set(free.tokens)))[:50]
    for name in RULES:
        held = await ruled(ensemble, PROMPT, under(name).but(banned=banned))
        assert not set(held.tokens) & set(banned)
        assert not any(choice.degraded for choice in held.choices)
    eos = ensemble.tokenizer.eos_id
    assert eos is not None
    ended = under("mod").but(ignore_eos=False, logit_bias={eos: 100.0}, min_tokens=4)
    assert (await ruled(ensemble, PROMPT, ended)).tokens.index(eos) == 4


@pytest.mark.parametrize("name", ["mod", "genarm"])
async def test_a_bias_counts_once_in_both_engines(
    ensemble: Engine, reference_ensemble: Engine, name: str
) -> None:
    """Biases that bring two tokens of a middling probability to the same one, by the formula."""
    each = await rows(reference_ensemble)
    row = expected(each, name, heat=1.0)
    one, two = np.argsort(-row)[[20, 60]].tolist()
    bias = {token: float(3 - np.log(row[token])) for token in (one, two)}
    stated = row.copy()
    stated[[one, two]] = np.exp(3)
    stated /= stated.sum()
    sampling = under(name, **(FLAT if name == "mod" else {})).but(logit_bias=bias, logprobs=2)
    for engine in (ensemble, reference_ensemble):
        found = await ruled(engine, PROMPT, sampling.but(temperature=1.0, seed=3), 1)
        assert found.tokens[0] in (one, two)
        told = dict(found.logprobs[0].top)
        assert told == pytest.approx({v: np.log(stated[v]) for v in (one, two)}, abs=1e-3)


async def test_members_are_asked_by_name(ensemble: Engine, reference_ensemble: Engine) -> None:
    for member in MEMBERS:
        fast = await ensemble.next_logprobs(PROMPT, member=member)
        slow = await reference_ensemble.next_logprobs(PROMPT, member=member)
        assert fast == pytest.approx(slow, abs=1e-4)
        some = await ensemble.next_logprobs(PROMPT, tokens=[7, 3], member=member)
        assert some == pytest.approx({7: slow[7], 3: slow[3]}, abs=1e-4)
        assert len(await ensemble.next_logprobs(PROMPT, 5, member=member)) == 5
    with pytest.raises(UnsupportedError) as caught:
        await ensemble.next_logprobs(PROMPT, 1, member="nobody")
    assert caught.value.param == "member"


@pytest.fixture(scope="module")
async def flawed(policies: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """An ensemble whose second member's weights are no numbers."""
    broken = tmp_path_factory.mktemp("flawed") / "prose"
    file = shutil.copytree(policies / "prose", broken) / "model.safetensors"
    weights = {name: part * torch.nan for name, part in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})
    members = {"math": str(policies / "math"), "prose": str(broken)}
    engine = build("flawed", {"kind": "ensemble", "members": members, "engine_args": ENGINE_ARGS})
    await engine.start()
    yield engine
    await engine.stop()


async def test_a_member_that_says_nothing_is_not_answered_for(
    flawed: Engine, reference_ensemble: Engine
) -> None:
    with pytest.raises(EngineError, match=r"'prose'.*no distribution"):
        await flawed.next_logprobs(PROMPT, 5, member="prose")
    fast = await flawed.next_logprobs(PROMPT, 5, member="math")
    slow = await reference_ensemble.next_logprobs(PROMPT, 5, member="math")
    assert fast == pytest.approx(slow, abs=1e-4)


async def test_proposals_of_a_member_that_says_nothing_degrade(flawed: Engine) -> None:
    """Its row is the first member's; the row beside it is the rule's own."""
    both, alone = await asyncio.gather(
        *(
            ruled(flawed, PROMPT, Sampling(temperature=0, rule=Rule("propose", parts)), 2)
            for parts in ({"reference": "mixture"}, {"agents": ["math"]})
        )
    )
    assert all("finite" in (choice.degraded or "") for choice in both.choices)
    assert not any(choice.degraded for choice in alone.choices)
    assert both.tokens == alone.tokens


async def rows(engine: Engine) -> dict[str, np.ndarray[Any, Any]]:
    """Every member's next-token log-probabilities, [vocabulary]."""
    found = {}
    for member in MEMBERS:
        each = await engine.next_logprobs(PROMPT, member=member)
        found[member] = np.array([each[token] for token in range(len(each))])
    return found


def normal(row: np.ndarray[Any, Any], temperature: float = 1.0) -> np.ndarray[Any, Any]:
    weights = np.exp((row - row.max()) / temperature)
    return np.asarray(weights / weights.sum())


def expected(
    each: Mapping[str, np.ndarray[Any, Any]], name: str, deltas: Sequence[float] = (), *,
    heat: float = 0.7,
) -> np.ndarray[Any, Any]:  # fmt: skip
    """The distribution that a rule states, written out; at a temperature for genarm.

    With a bound SITAlign's one multiplier is found by halving.
    """
    if name == "mod":
        return normal(0.5 * each["math"] + 0.5 * each["prose"])
    if name == "genarm":
        return normal(each["base"] + each["wish"], heat)
    top = np.argsort(-each["base"], kind="stable")[:10]
    held = (0.7 * (each["harm"] - each["base"]))[top]

    def tilted(multiplier: float) -> np.ndarray[Any, Any]:
        row = np.full_like(each["base"], -np.inf)
        row[top] = (each["base"] + 0.5 * (each["wish"] - each["base"]) / 0.5)[top]
        row[top] += multiplier * held / 0.5
        return normal(row)

    low, high = 0.0, 0.0
    for delta in deltas:
        bound = delta - 0.0005 * held.std()  # the solver's own tolerance
        assert tilted(0.0)[top] @ held < bound < held.max()
        high = 1.0
        while tilted(high)[top] @ held < bound:
            high *= 2
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if tilted(middle)[top] @ held >= bound else (middle, high)
    return tilted(high)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mod", FLAT),
        ("genarm", {}),
        ("sitalign", {"constrained": [], "deltas": [], "alpha": 0.5}),
        ("sitalign", {"deltas": [-1.3], "alpha": 0.5}),
    ],
)
async def test_draws_follow_the_stated_policy(
    ensemble: Engine, reference_ensemble: Engine, name: str, changes: dict[str, Any]
) -> None:
    heat = 0.7 if name == "genarm" else 1.0
    sampling = under(name, **changes).but(temperature=heat, logprobs=0)
    jobs = [
        ruled(ensemble, PROMPT, sampling.but(seed=1_000_003 * seed + 17), 1)
        for seed in range(DRAWS)
    ]
    found = await asyncio.gather(*jobs)
    stated = expected(await rows(reference_ensemble), name, changes.get("deltas", ()))
    p = goodness([one.tokens[0] for one in found], stated)
    assert p > SURE, f"chi-square p = {p:.2g} over n = {DRAWS} draws"
    for one in found[:20]:
        assert one.logprobs[0].logprob == pytest.approx(np.log(stated[one.tokens[0]]), abs=1e-3)


async def test_a_seeded_draw_repeats_in_any_company(ensemble: Engine) -> None:
    sampling = under("mod").but(temperature=1.0, seed=11)
    alone = await ruled(ensemble, PROMPT, sampling)
    crowd = [
        ruled(ensemble, ids, under(name)) for ids, name in zip(prompts(8), RULES, strict=False)
    ]
    together, *_ = await asyncio.gather(ruled(ensemble, PROMPT, sampling), *crowd)
    assert together.tokens == alone.tokens
    assert (await ruled(ensemble, PROMPT, sampling.but(seed=12))).tokens != alone.tokens


async def test_no_session_under_a_rule(ensemble: Engine) -> None:
    assert isinstance(ensemble, VllmEnsemble)
    with pytest.raises(UnsupportedError) as caught:
        async with ensemble.session(PROMPT, under("mod")):
            pass
    assert caught.value.param == "rule"

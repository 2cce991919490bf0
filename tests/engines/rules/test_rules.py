"""Each rule against the same written out in plain loops, and what it refuses."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engines.rules.core.base import Step, biases
from engines.rules.core.candidates import likeliest
from engines.rules.core.cast import Cast, Reward, RuleFault
from engines.rules.core.registry import checked, find, names

MEMBERS = ("math", "prose", "base", "wish", "harm")
CAST = Cast(
    MEMBERS,
    "base",
    {
        "wish": Reward(member="wish", reference="base", beta=0.5),
        "harmless": Reward(member="harm", reference="base", beta=0.7),
        "raw": Reward(member="wish"),
    },
)
WISH = {"target": "wish"}
TILT = {"primary": "wish", "constrained": ["harmless"], "deltas": [0.05]}


def logits(rows: int = 40, vocabulary: int = 30, seed: int = 5) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(len(MEMBERS), rows, vocabulary, generator=random)


@dataclass(frozen=True)
class Said:
    """A verdict, its logits over the whole vocabulary."""

    logits: Tensor
    tokens: Tensor | None
    speakers: Tensor | None
    notes: Mapping[str, Sequence[Any]]


def said(
    name: str, parameters: dict[str, Any], given: Tensor, *,
    greedy: bool = False, bias: Mapping[int, float] | None = None,
) -> Said:  # fmt: skip
    step = Step(CAST, given, greedy, biases([bias or {}] * given.shape[1], given[0]))
    verdict = find(name).choose(step, checked(name, parameters, CAST))
    return Said(verdict.spoken(step), verdict.tokens, verdict.speakers, verdict.notes)


def logp(given: Tensor, member: str, row: int) -> list[float]:
    x = given[MEMBERS.index(member), row].double()
    found: list[float] = (x - x.logsumexp(-1)).tolist()
    return found


def forbidding(given: Tensor, tokens: list[int]) -> Tensor:
    out = given.clone()
    out[..., tokens] = -torch.inf
    return out


def test_rules_are_found_by_file_name() -> None:
    assert names() == ("collab", "genarm", "mod", "only", "propose", "sitalign")
    for name in names():
        assert find(name).name == name
        assert find(name).summary
        assert all(field.description for field in find(name).parameters.model_fields.values())
    with pytest.raises(RuleFault, match="known: collab"):
        find("no_such_rule")


def test_policies_that_speak_are_neither_reference_nor_reward() -> None:
    assert CAST.policies == ("math", "prose")
    assert Cast(("only",), "only").policies == ("only",)


@pytest.mark.parametrize(
    ("name", "parameters", "field"),
    [
        ("only", {}, "policy"),
        ("only", {"policy": "nobody"}, "policy"),
        ("only", {"policy": "math", "more": 1}, "more"),
        ("only", {"policy": {"a": 1}}, "policy"),
        ("collab", {"target": "nothing"}, "target"),
        ("collab", {"target": "raw"}, "target"),
        ("collab", {}, "target"),
        ("collab", {**WISH, "agents": ["math", "nobody"]}, "agents"),
        ("collab", {**WISH, "candidates": 0}, "candidates"),
        ("collab", {**WISH, "alpha": "1"}, "alpha"),
        ("collab", {**WISH, "alpha": math.nan}, "alpha"),
        ("collab", {**WISH, "reference": "none"}, "reference"),
        ("collab", {**WISH, "reference": "nobody"}, "reference"),
        ("propose", {"agents": ["math", "nobody"]}, "agents"),
        ("propose", {"agents": ["math", "math"]}, "agents"),
        ("propose", {"reference": "nobody"}, "reference"),
        ("propose", {"candidates": 0}, "candidates"),
        ("sitalign", {**TILT, "deltas": []}, "deltas"),
        ("sitalign", {**TILT, "constrained": ["raw"]}, "constrained"),
        ("sitalign", {**TILT, "thresholds": [0.0]}, "thresholds"),
        ("sitalign", {**TILT, "alpha": 0}, "alpha"),
        ("sitalign", {**TILT, "deltas": [math.inf]}, "deltas.0"),
        ("sitalign", {**TILT, "solver": "guess"}, "solver"),
        ("sitalign", {**TILT, "base": "nobody"}, "base"),
        ("mod", {"policies": ["math"], "weights": [0.5]}, "weights"),
        ("mod", {"policies": ["math", "prose"], "weights": [1.0]}, "weights"),
        ("mod", {"policies": ["math", "prose"], "weights": [1.5, -0.5]}, "weights"),
        ("mod", {"policies": ["nobody"], "weights": [1.0]}, "policies"),
        ("genarm", {"base": "base", "rewards": ["nothing"], "alphas": [1.0]}, "rewards"),
        ("genarm", {"base": "base", "rewards": ["raw"], "alphas": []}, "alphas"),
        ("genarm", {"base": "base", "rewards": ["raw"], "alphas": [-1.0]}, "alphas"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name: str, parameters: Any, field: str) -> None:
    with pytest.raises(RuleFault) as caught:
        checked(name, parameters, CAST)
    assert caught.value.field == field
    assert field.split(".")[0] in str(caught.value)


def test_only_gives_the_policys_own_logits() -> None:
    given = logits()
    verdict = said("only", {"policy": "prose"}, given)
    assert torch.equal(verdict.logits, given[1])
    assert verdict.tokens is None


def test_mod_is_the_weighted_product() -> None:
    given = forbidding(logits(), [3])
    verdict = said("mod", {"policies": ["math", "prose"], "weights": [0.25, 0.75]}, given)
    for row in range(5):
        mixed = 0.25 * np.array(logp(given, "math", row)) + 0.75 * np.array(
            logp(given, "prose", row)
        )
        assert verdict.logits[row].tolist() == pytest.approx(mixed.tolist(), abs=1e-5)
    assert torch.isneginf(verdict.logits[:, 3]).all()
    alone = said("mod", {"policies": ["math", "prose"], "weights": [0.0, 1.0]}, given)
    assert torch.allclose(alone.logits, given[1].log_softmax(-1), atol=1e-5)


def test_genarm_multiplies_powers() -> None:
    given = logits()
    asked = {"base": "base", "rewards": ["raw", "harmless"], "alphas": [1.5, 0.5]}
    verdict = said("genarm", asked, given)
    for row in range(5):
        parts = [np.array(logp(given, name, row)) for name in ("base", "wish", "harm")]
        mixed = parts[0] + 1.5 * parts[1] + 0.5 * parts[2]
        assert verdict.logits[row].tolist() == pytest.approx(mixed.tolist(), abs=1e-5)


def collab_by_hand(
    given: Tensor, row: int, agents: list[str], p: int, alpha: float, reference: str, cut: float
) -> tuple[float, str, int]:
    """(utility, agent, token) of the best pair, by plain loops."""
    ratio = [
        0.5 * (a - b)
        for a, b in zip(logp(given, "wish", row), logp(given, "base", row), strict=True)
    ]
    each = {name: logp(given, name, row) for name in agents}
    against = [
        math.log(sum(math.exp(each[n][v]) for n in agents) / len(agents))
        for v in range(given.shape[-1])
    ]
    if reference in MEMBERS:
        against = logp(given, reference, row)
    pairs = []
    for place, name in enumerate(agents):
        mine = each[name]
        kl = sum(math.exp(a) * (a - b) for a, b in zip(mine, against, strict=True))
        kl = 0.0 if reference == "none" else max(0.0, kl)
        top = sorted(range(len(mine)), key=lambda v: (-mine[v], v))[:p]
        kept = [v for v in top if math.exp(mine[v]) >= cut * math.exp(max(mine))]
        pairs += [(ratio[v] - alpha * kl, -place, i, name, v) for i, v in enumerate(kept)]
    best = max(pairs, key=lambda pair: (pair[0], pair[1], -pair[2]))
    return best[0], best[3], best[4]


@pytest.mark.parametrize("vocabulary", [30, 1000, 2048])
@pytest.mark.parametrize("p", [1, 3, 10])
@pytest.mark.parametrize(
    ("alpha", "reference", "cut"),
    [(1.0, "mixture", 0.1), (0.5, "base", 0.0), (0.0, "none", 0.3), (3.0, "mixture", 1.0)],
)
def test_collab_takes_the_best_of_all_pairs(
    vocabulary: int, p: int, alpha: float, reference: str, cut: float
) -> None:
    given = logits(12, vocabulary)
    asked = {**WISH, "candidates": p, "alpha": alpha, "reference": reference, "plausible": cut}
    verdict = said("collab", asked, given)
    assert verdict.tokens is not None
    assert verdict.speakers is not None
    for row in range(given.shape[1]):
        worth, agent, token = collab_by_hand(
            given, row, ["math", "prose"], p, alpha, reference, cut
        )
        assert verdict.notes["utility"][row] == pytest.approx(worth, abs=1e-4)
        assert int(verdict.tokens[row]) == token
        assert MEMBERS[int(verdict.speakers[row])] == agent
        assert torch.equal(verdict.logits[row], given[verdict.speakers[row], row])


@pytest.mark.parametrize("vocabulary", [5, 64, 640, 5000])
def test_the_likeliest_are_found_wherever_they_stand(vocabulary: int) -> None:
    given = logits(20, vocabulary)
    for row in range(20):  # many of them side by side, also at the very end
        given[:, row, max(0, vocabulary - 1 - row) :] += 20
    for count in (1, 4, 10):
        ids, values = likeliest(given, count)
        wanted = given.sort(dim=-1, descending=True, stable=True)
        assert torch.equal(ids, wanted.indices[..., :count])
        assert torch.equal(values, wanted.values[..., :count])


def test_collab_breaks_ties_by_the_order_of_agents() -> None:
    given = logits()
    given[1] = given[0]
    verdict = said("collab", WISH, given)
    assert verdict.speakers is not None
    assert (verdict.speakers == 0).all()
    turned = said("collab", {**WISH, "agents": ["prose", "math"]}, given)
    assert turned.speakers is not None
    assert (turned.speakers == 1).all()


def test_collab_with_one_agent_and_one_candidate_is_greedy() -> None:
    given = logits()
    verdict = said("collab", {**WISH, "agents": ["prose"], "candidates": 1}, given)
    assert verdict.tokens is not None
    assert torch.equal(verdict.tokens, given[1].argmax(-1))


def test_collab_never_takes_what_is_forbidden() -> None:
    given = logits()
    out = sorted({int(v) for v in given[:2].argmax(-1).flatten()})
    verdict = said("collab", {**WISH, "plausible": 0.0, "candidates": 30}, forbidding(given, out))
    assert verdict.tokens is not None
    assert not set(verdict.tokens.tolist()) & set(out)
    one = forbidding(given, list(range(29)))
    assert (said("collab", WISH, one).tokens == 29).all()  # type: ignore[union-attr]


@pytest.mark.parametrize("reference", ["none", "mixture", "base"])
def test_propose_tells_every_agents_likeliest(reference: str) -> None:
    given = forbidding(logits(), [4])
    asked = {"candidates": 6, "reference": reference}
    notes = said("propose", asked, given).notes
    for row in range(given.shape[1]):
        assert notes["agents"][row] == ["math", "prose"]
        for place, name in enumerate(("math", "prose")):
            own = logp(given, name, row)
            top = sorted(range(30), key=lambda v: (-own[v], v))[:6]
            assert notes["tokens"][row][place] == top
            assert notes["logprobs"][row][place] == pytest.approx([own[v] for v in top], abs=1e-5)
        if reference == "base":
            wanted = logp(given, "base", row)
            told = notes["reference"][row][1]
            assert told == pytest.approx([wanted[v] for v in notes["tokens"][row][1]], abs=1e-5)
        if reference == "mixture":
            each = [logp(given, name, row) for name in ("math", "prose")]
            shown = notes["tokens"][row][0]
            mean = [math.log(sum(math.exp(own[v]) for own in each) / 2) for v in shown]
            told = notes["reference"][row][0]
            assert told == pytest.approx(mean, abs=1e-5)
    assert ("reference" in notes) == (reference != "none")
    assert all((min(kl) > 0) == (reference != "none") for kl in notes["kl"])


def test_the_mixtures_divergence_is_at_most_log_k() -> None:
    verdict = said("collab", {**WISH, "reference": "mixture"}, logits())
    assert 0 <= min(verdict.notes["kl"]) <= max(verdict.notes["kl"]) <= math.log(2)


def advantages(given: Tensor, row: int, member: str, beta: float) -> list[float]:
    pairs = zip(logp(given, member, row), logp(given, "base", row), strict=True)
    return [beta * (a - b) for a, b in pairs]


@pytest.mark.parametrize("delta", [-5.0, 0.05, 0.4])
def test_sitalign_draws_from_the_constrained_policy(delta: float) -> None:
    given = logits()
    verdict = said("sitalign", {**TILT, "deltas": [delta]}, given)
    p = verdict.logits.softmax(-1)
    seen = set()
    for row in range(given.shape[1]):
        base = logp(given, "base", row)
        top = sorted(range(30), key=lambda v: (-base[v], v))[:10]
        assert set(torch.nonzero(p[row])[:, 0].tolist()) <= set(top)
        one, two = (advantages(given, row, m, b) for m, b in (("wish", 0.5), ("harm", 0.7)))
        held = sum(float(p[row, v]) * two[v] for v in top)
        state = verdict.notes["state"][row]
        seen.add(state)
        if state == "certified":
            assert held >= delta - 1e-3 * np.std([two[v] for v in top]) - 1e-5
            lam = verdict.notes["multipliers"][row][0]
            tilted = np.array([base[v] + one[v] + lam * two[v] for v in top])
            expected = np.exp(tilted - tilted.max())
            assert p[row, top].tolist() == pytest.approx(
                (expected / expected.sum()).tolist(), abs=1e-4
            )
        else:
            assert max(two[v] for v in top) < delta
    assert "certified" in seen
    assert ("infeasible" in seen) == (delta > -5)


def test_sitalign_at_temperature_0_takes_the_constrained_argmax() -> None:
    given = logits()
    verdict = said("sitalign", {**TILT, "deltas": [0.4]}, given, greedy=True)
    assert verdict.tokens is not None
    for row in range(given.shape[1]):
        base = logp(given, "base", row)
        top = sorted(range(30), key=lambda v: (-base[v], v))[:10]
        one, two = (advantages(given, row, m, b) for m, b in (("wish", 0.5), ("harm", 0.7)))
        fits = [v for v in top if two[v] >= 0.4]
        best = max(fits, key=lambda v: one[v] + base[v]) if fits else max(top, key=lambda v: two[v])
        assert int(verdict.tokens[row]) == best
        assert verdict.notes["state"][row] == ("satisfied" if fits else "violated")


def test_sitalign_with_one_candidate_is_greedy() -> None:
    given = logits()
    verdict = said("sitalign", {**TILT, "candidates": 1}, given, greedy=True)
    assert torch.equal(verdict.tokens, given[2].argmax(-1))  # type: ignore[arg-type]
    free = said("sitalign", {"primary": "wish"}, given)
    tilted = logp(given, "base", 0)
    assert free.notes["margin"] == [None] * 40
    assert int(free.logits[0].argmax()) in sorted(range(30), key=lambda v: -tilted[v])[:10]


@pytest.mark.parametrize("solver", ["newton", "expansion"])
def test_closed_forms_are_marked_where_they_break(solver: str) -> None:
    notes = said("sitalign", {**TILT, "deltas": [0.3], "solver": solver}, logits()).notes
    assert set(notes["state"]) == {"certified", "unsolved"}


@pytest.mark.parametrize("name", ["collab", "sitalign", "mod", "genarm"])
def test_a_row_does_not_depend_on_the_others(name: str) -> None:
    asked: dict[str, dict[str, Any]] = {
        "collab": WISH,
        "sitalign": TILT,
        "mod": {"policies": ["math", "prose"], "weights": [0.5, 0.5]},
        "genarm": {"base": "base", "rewards": ["raw"], "alphas": [1.0]},
    }
    given = forbidding(logits(), [1, 2])
    whole = said(name, asked[name], given)
    for row in (0, 17):
        alone = said(name, asked[name], given[:, row : row + 1])
        assert torch.allclose(alone.logits[0], whole.logits[row], atol=1e-5)
        if whole.tokens is not None and alone.tokens is not None:
            assert alone.tokens[0] == whole.tokens[row]


BIAS = {3: 1.5, 7: -2.0}


def spoken(given: Tensor, member: str, row: int) -> list[float]:
    """Log-probabilities of a member that speaks under BIAS."""
    own = np.array(logp(given, member, row))
    for token, value in BIAS.items():
        own[token] += value
    found: list[float] = (own - np.log(np.exp(own).sum())).tolist()
    return found


@pytest.mark.parametrize(
    ("name", "asked", "weights"),
    [
        ("only", {"policy": "prose"}, {"prose": 1.0}),
        ("mod", {"policies": ["math", "prose"], "weights": [0.25, 0.75]},
         {"math": 0.25, "prose": 0.75}),
        ("genarm", {"base": "base", "rewards": ["raw", "harmless"], "alphas": [1.5, 0.5]},
         {"base": 1.0, "wish": 1.5, "harm": 0.5}),
    ],
)  # fmt: skip
def test_a_bias_counts_once_in_what_is_mixed(
    name: str, asked: dict[str, Any], weights: dict[str, float]
) -> None:
    given = forbidding(logits(), [5])
    found = said(name, asked, given, bias=BIAS).logits.log_softmax(-1)
    for row in range(5):
        mixed = np.sum([w * np.array(logp(given, one, row)) for one, w in weights.items()], 0)
        for token, value in BIAS.items():
            mixed[token] += value
        wanted = mixed - np.log(np.exp(mixed).sum())
        assert found[row].tolist() == pytest.approx(wanted.tolist(), abs=1e-5)


def test_collab_proposes_under_a_bias_and_weighs_without_it() -> None:
    given = logits()
    asked = {**WISH, "candidates": 1}
    free, found = said("collab", asked, given), said("collab", asked, given, bias=BIAS)
    kl = said("propose", {"reference": "mixture"}, given).notes["kl"]
    assert found.tokens is not None and found.speakers is not None
    for row in range(given.shape[1]):
        token, agent = int(found.tokens[row]), MEMBERS[int(found.speakers[row])]
        own = spoken(given, agent, row)
        assert token == int(np.argmax(own))
        assert found.logits[row].log_softmax(-1).tolist() == pytest.approx(own, abs=1e-5)
        gained = advantages(given, row, "wish", 0.5)[token]
        worth = gained - kl[row][int(found.speakers[row])]
        assert found.notes["utility"][row] == pytest.approx(worth, abs=1e-5)
    assert free.tokens is not None and (free.tokens != found.tokens).any()


def test_propose_tells_what_is_said_under_a_bias() -> None:
    given = logits()
    asked = {"candidates": 30, "reference": "base"}
    free, notes = (said("propose", asked, given, bias=bias).notes for bias in (None, BIAS))
    assert notes["kl"] == free["kl"]
    for row in range(5):
        for place, name in enumerate(("math", "prose")):
            own, base = spoken(given, name, row), logp(given, "base", row)
            tokens = notes["tokens"][row][place]
            assert tokens == sorted(range(30), key=lambda v: (-own[v], v))
            wanted = [own[v] for v in tokens]
            assert notes["logprobs"][row][place] == pytest.approx(wanted, abs=1e-5)
            assert notes["reference"][row][place] == pytest.approx(
                [base[v] for v in tokens], abs=1e-5
            )


@pytest.mark.parametrize("greedy", [True, False])
def test_sitalign_tilts_a_biased_base_by_unbiased_rewards(greedy: bool) -> None:
    given = logits()
    asked = {**TILT, "deltas": [0.05]}
    found = said("sitalign", asked, given, greedy=greedy, bias=BIAS)
    for row in range(5):
        own = spoken(given, "base", row)
        top = sorted(range(30), key=lambda v: (-own[v], v))[:10]
        assert found.notes["candidates"][row] == top
        one, two = (advantages(given, row, m, b) for m, b in (("wish", 0.5), ("harm", 0.7)))
        told = found.notes["advantages"][row]
        wanted = [value for v in top for value in (one[v], two[v])]
        assert [value for pair in told for value in pair] == pytest.approx(wanted, abs=1e-5)
        if greedy:
            fits = [v for v in top if two[v] >= 0.05] or [max(top, key=lambda v: two[v])]
            assert int(found.tokens[row]) == max(fits, key=lambda v: one[v] + own[v])  # type: ignore[index]
        elif found.notes["state"][row] == "certified":
            lam = found.notes["multipliers"][row][0]
            tilted = np.array([own[v] + one[v] + lam * two[v] for v in top])
            p = np.exp(tilted) / np.exp(tilted).sum()
            drawn = found.logits.softmax(-1)[row, top]
            assert drawn.tolist() == pytest.approx(p.tolist(), abs=1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("member", ["prose", "base", "wish"])
@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("collab", {**WISH, "reference": "base"}),
        ("collab", {**WISH, "reference": "none", "alpha": 0.0}),
        ("propose", {"agents": ["math", "prose", "wish"], "reference": "base"}),
        ("propose", {"agents": ["math", "prose", "base", "wish"], "reference": "mixture"}),
    ],
)
def test_a_member_without_numbers_is_no_choice(
    name: str, asked: dict[str, Any], member: str, value: float
) -> None:
    given = logits()
    given[MEMBERS.index(member), 0, 4] = value
    with pytest.raises(ValueError, match="finite"):
        said(name, asked, given)

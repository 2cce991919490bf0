"""The claim on SITAlign: its choices on made-up answers."""

from collections.abc import Callable

import pytest
from rich.console import Console

from clients.eval import sitalign as claim
from clients.eval.core.asking import Arm, Item, Reply
from clients.eval.core.bench import Bench
from clients.eval.core.brews import Brew
from clients.eval.core.report import Report, Row
from clients.eval.core.satisficing import Settings, Tried, best, sampled
from tests.fakes.asker import ScriptedAsker

FEW = {"validation": "100", "levels": "0.95", "weights": "0.2,0.8", "strengths": "1"}


class Scripted(ScriptedAsker):
    """Each arm's answers have one step of its own strength; the others are mild."""

    def __init__(self, strength: Callable[[Arm], str]) -> None:
        super().__init__()
        self.strength = strength

    def _reply(self, arm: Arm, brew: Item) -> Reply:
        assert isinstance(brew, Brew)
        steps = [self.strength(arm), *["dew"] * (brew.steps - 1)]
        content = "First " + ", then ".join(f"{brew.suits[0]} {step}" for step in steps) + "."
        spent = {"generated_tokens": 20, "monitor_calls": 5}
        return Reply(brew, content, brew.is_right(content), 0, spent, {}, 0.1, finish="stop")


async def measured(asker: Scripted, **options: str) -> Report:
    chosen = {**claim.OPTIONS, **FEW, **options}
    return await claim.measure(Bench(asker, Console(quiet=True), 600, 0, chosen))


def row(report: Report, arm: str, metric: str) -> Row:
    (found,) = [row for row in report.rows if (row.arm, row.metric) == (arm, metric)]
    return found


@pytest.mark.parametrize("reply", ["ember salt", "wait"])
async def test_the_judge_is_the_rule(reply: str) -> None:
    brew = Brew("b", "t", "?", 2, ("ember", "moss"), 2)
    assert brew.is_right(reply) is (reply == "wait")


def test_the_best_setting_reaches_the_level_by_its_bound() -> None:
    arms = [Arm(name, {}) for name in "abcd"]
    rates = [(5.0, 150), (4.0, 190), (3.0, 199), (2.0, 200)]
    tried = [Tried(arm, r, k, 200) for arm, (r, k) in zip(arms, rates, strict=True)]
    assert best(tried, 0.5).arm.name == "a"
    assert best(tried, 0.95).arm.name == "c"  # 190 of 200 are 95%, but not by their bound
    assert best(tried, 0.99).arm.name == "d"
    assert not tried[3].reaches(0.99)


def by_threshold(arm: Arm) -> str:
    """SITAlign is as bold as its threshold lets it, a mixture as its weight does."""
    params = arm.decoding.get("params", {})
    if arm.decoding["strategy"] == "sitalign":
        return "salt" if params["thresholds"][0] < -3 else "oil"
    if arm.decoding["strategy"] == "mod" and len(params["policies"]) > 1:
        return "salt" if params["weights"][1] < 0.5 else "dew"
    return "oil" if arm.name == "policy[base]" else "salt"


async def test_what_is_asked_is_what_was_chosen_on_validation() -> None:
    """Salt is too much where a risk counts twice, so it keeps within the limit half of the time."""
    asker = Scripted(by_threshold)
    report = await measured(asker, utilities="implicit", implicit="-4,-3")
    ours, theirs = "sitalign[implicit,threshold={},temperature=0]", "mod[harmless={},temperature=0]"
    tested = {row.arm for row in report.rows}
    assert theirs.format(0.8) in tested
    assert theirs.format(0.2) not in tested
    assert any(
        note.startswith("mod at 95%") and theirs.format(0.8) in note for note in report.notes
    )
    assert any("args[base,both] at 95%" in n and "NOT reached" in n for n in report.notes)
    # All thresholds are shown, whatever was chosen of them.
    for least, kept in ((-4, 0.5), (-3, 1.0)):
        found = row(report, ours.format(least), "constraint_satisfaction")
        assert found.value == pytest.approx(kept, abs=0.1)
        assert found.n == 600
    assert row(report, "policy[base]", "win_tie_rate").value == 1
    # Asked on both splits, and the base policy once more for what answers are held against.
    assert [arm.name for arm in asker.arms].count("policy[base]") == 2
    assert [arm.name for arm in asker.arms].count(ours.format(-4)) == 2
    lines = claim.series(report)
    assert [row.arm for row, _ in lines["sitalign[implicit]"]] == [ours.format(-4), ours.format(-3)]


@pytest.mark.parametrize(("own", "held"), [("oil", True), ("dew", False), ("salt", False)])
async def test_twenty_points_within_the_limit(own: str, held: bool) -> None:
    """The rival is mild: as good as ours where ours is; what breaks the limit does not count."""

    def strength(arm: Arm) -> str:
        if arm.decoding["strategy"] == "sitalign":
            return own
        return "oil" if arm.name == "policy[base]" else "dew"

    report = await measured(Scripted(strength), utilities="implicit", implicit="-3")
    verdicts = [ok for text, ok in report.verdicts if "20 points" in text]
    assert verdicts == [held] * 4  # a mixture, and three forms of ARGS
    pairs = [r.value for r in report.rows if r.metric == "win_tie_rate_difference"]
    assert pairs == [float(own != "dew")] * 6
    faces = [r.value for r in report.rows if r.metric == "wins_minus_losses"]
    assert faces == pairs


async def test_the_requests_say_what_the_arms_are() -> None:
    settings = Settings.of({**claim.OPTIONS, "utilities": "prefix_reward,rollout", **FEW})
    families = settings.families()
    params = families["sitalign[prefix_reward]"][0].decoding["params"]
    assert params["utility"] == "prefix_reward"
    assert (params["primary"], params["constrained"]) == ("helpfulness", ["harmlessness"])
    assert params["thresholds"] == [-4]
    assert families["sitalign[rollout]"][0].rows > 1
    assert {arm.sampling["temperature"] for arm in families["mod"]} == {0.0, 0.5, 1.0}
    assert all(sum(arm.decoding["params"]["weights"]) == 1 for arm in families["mod"])
    assert all(arm.sampling == sampled(0.0) for arm in families["args[base,both]"])
    names = [arm.name for arms in families.values() for arm in arms]
    assert len(names) == len(set(names))

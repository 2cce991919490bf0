"""Laws of every kind of monitor, run over all that are registered."""

import asyncio
import math
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from monitors.core.base import Message, Monitor, MonitorError, Stage
from monitors.core.order import members
from monitors.core.registry import Parts, build, kinds, parse
from tests.checkpoints import make_llama, make_tagger
from tests.fakes.guard_models import spec, write_guard
from tests.fakes.moderator import moderator
from tests.fakes.reward import write_reward

Case = tuple[list[Message], list[str]]
WEIGHTS = Path(__file__).parents[2] / "testbed" / "weights" / "reward"


def specs(folder: Path, url: str = "http://127.0.0.1:9") -> dict[str, list[dict[str, Any]]]:
    """What to build of each kind; a new kind fails `test_every_kind_is_here` until it is added."""
    rewards = [write_reward(folder / "tiny"), *([WEIGHTS] if WEIGHTS.is_dir() else [])]
    checks: list[dict[str, Any]] = [
        {"kind": "exact", "answer": "42"},
        {"kind": "regex", "pattern": r"\d+"},
        {"kind": "json_schema", "schema": {"type": "integer"}},
    ]
    guards = ("llama_guard_3", "qwen3guard")
    tag = {"form": "verdict", "separator": "#", "model": str(make_llama(folder / "causal"))}
    steps = [{"model": str(make_tagger(folder / "tagger")), "steps": "line"}, tag]
    return {
        "generative_guard": [spec(write_guard(folder / one, one), one) for one in guards],
        "verifier": [{"kind": "verifier", "check": check} for check in checks],
        "sequence_reward": [{"kind": "sequence_reward", "model": str(path)} for path in rewards],
        "process_reward": [{"kind": "process_reward", **own} for own in steps],
        "rules": [{"kind": "rules", "rules": {"found": {"words": ["42", "7*6=42"]}}}],
        "remote": [{"kind": "remote", "url": url}],
        "ensemble": [
            {"kind": "ensemble", "members": ["sequence_reward-0", "again"]},
            {"kind": "ensemble", "members": ["rules-0", "remote-0"], "aggregate": "majority"},
        ],
    }


def cases() -> list[Case]:
    """Conversations of many lengths, with and without thinking; seeded."""
    rng = random.Random(7)
    drawn: list[Case] = []
    for _ in range(24):
        question: Message = {"role": "user", "content": "7*6=" * rng.randint(1, 6)}
        answer = rng.choice(["42", "The answer is 41.", "none", "{}", '"x"'])
        thinking = "7*6=42\n" * rng.randint(0, 6)
        drawn.append(([question], [thinking, answer] if thinking else [answer]))
    return drawn


@pytest.fixture(scope="module")
async def monitors(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Monitor]]:
    built: dict[str, Monitor] = {}
    with moderator(lambda text: len(text) % 10 / 10) as url:
        every = specs(tmp_path_factory.mktemp("weights"), url)
        named = {f"{kind}-{i}": s for kind in every for i, s in enumerate(every[kind])}
        named = {"again": every["sequence_reward"][0], **named}
        for name, own in sorted(named.items(), key=lambda pair: len(members(pair[1]))):
            built[name] = build(name, own, Parts(monitors=built))
        for monitor in built.values():
            await monitor.start()
        yield list(built.values())
        for monitor in built.values():
            await monitor.stop()


def test_every_kind_is_here(tmp_path: Path) -> None:
    assert sorted(specs(tmp_path)) == kinds()


async def test_batched_equals_one_by_one(monitors: list[Monitor]) -> None:
    for monitor in monitors:
        alone = [(await monitor.score(c, s, Stage.ANSWER)).value for c, s in cases()]
        together = await asyncio.gather(*(monitor.score(c, s, Stage.ANSWER) for c, s in cases()))
        assert [score.value for score in together] == pytest.approx(alone, abs=1e-5), monitor.name
        assert len(set(alone)) > 1, f"{monitor.name} cannot tell any two cases apart"
        most = math.inf if monitor.ceiling is None else monitor.ceiling
        assert all(monitor.floor <= value <= most for value in alone), monitor.name


async def test_companions_change_no_score(monitors: list[Monitor]) -> None:
    case, *others = cases()
    rng = random.Random(3)
    for monitor in monitors:
        alone = (await monitor.score(*case, Stage.ANSWER)).value
        for _ in range(4):
            batch = [case, *rng.sample(others, 9)]
            scores = await asyncio.gather(*(monitor.score(*c, Stage.ANSWER) for c in batch))
            assert scores[0].value == pytest.approx(alone, abs=1e-5), monitor.name


async def test_a_cancelled_call_harms_no_other(monitors: list[Monitor]) -> None:
    (case, other, *_) = cases()
    for monitor in monitors:
        expected = (await monitor.score(*case, Stage.ANSWER)).value
        gone = asyncio.create_task(monitor.score(*other, Stage.ANSWER))
        stays = asyncio.create_task(monitor.score(*case, Stage.ANSWER))
        await asyncio.sleep(0)
        gone.cancel()
        assert (await stays).value == pytest.approx(expected, abs=1e-5)


async def test_thinking_can_be_scored(monitors: list[Monitor]) -> None:
    for monitor in monitors:
        score = await monitor.score([{"role": "user", "content": "7*6"}], ["42"], Stage.THINKING)
        again = await monitor.score([{"role": "user", "content": "7*6"}], ["42"], Stage.THINKING)
        assert score.value == pytest.approx(again.value, abs=1e-5)
        assert score.tokens == again.tokens


def test_an_unknown_key_or_kind_is_an_error() -> None:
    for kind in kinds():
        with pytest.raises(ValueError, match="no_such_key"):
            parse({"kind": kind, "no_such_key": 1})
    with pytest.raises(ValueError, match="no kind of monitor 'oracle'"):
        parse({"kind": "oracle"})


async def test_a_monitor_not_started_or_stopped_refuses(tmp_path: Path) -> None:
    reward = build("r", {"kind": "sequence_reward", "model": str(write_reward(tmp_path))})
    case = cases()[0]
    with pytest.raises(MonitorError, match="not loaded"):
        await reward.score(*case, Stage.ANSWER)
    await reward.start()
    await reward.score(*case, Stage.ANSWER)
    await reward.stop()
    with pytest.raises(MonitorError, match="not loaded"):
        await reward.check()

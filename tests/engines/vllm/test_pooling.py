"""vLLM's pooling runner: a reward's and a tagger's rows are plain torch's."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from engines import reference
from engines.base import POOLING, Engine, EngineError, Sampling, UnsupportedError
from engines.vllm.engine import VllmEngine
from tests.checkpoints import CONTEXT, make_llama, make_reward, make_tagger
from tests.engines.vllm.conftest import made

pytestmark = pytest.mark.vllm

CLOSE = 1e-4
DRAW = random.Random(5)
TEXTS = [[DRAW.randrange(260) for _ in range(n)] for n in (1, 2, 33, 200, 7, 64, CONTEXT)]


async def rows(engine: Engine, every: bool) -> list[list[list[float]]]:
    """All texts' rows, asked for at the same time."""
    return await asyncio.gather(*(engine.classify(ids, every=every) for ids in TEXTS))


def near(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> bool:
    return [len(row) for row in found] == [len(row) for row in expected] and all(
        one == pytest.approx(other, abs=CLOSE) for one, other in zip(found, expected, strict=True)
    )


async def oracle(folder: Path, every: bool) -> list[list[list[float]]]:
    spec = {"kind": "reference", "model": str(folder), "runner": "pooling"}
    engine = reference.build("oracle", spec)
    await engine.start()
    expected = await rows(engine, every)
    await engine.stop()
    return expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reward(tmp_path_factory.mktemp("reward"), labels=2)


@pytest.fixture(scope="module")
async def reward(folder: Path) -> AsyncIterator[VllmEngine]:
    engine = made("reward", folder, runner="pooling")
    await engine.start()
    yield engine
    await engine.stop()
    assert engine.running == 0


@pytest.mark.parametrize("every", [False, True])
async def test_a_rewards_rows_are_plain_torchs(
    reward: VllmEngine, folder: Path, every: bool
) -> None:
    expected = await oracle(folder, every)
    for _ in range(2):  # the second time over the prefix cache
        found = await rows(reward, every)
        assert all(near(*pair) for pair in zip(found, expected, strict=True))
    mixed = await asyncio.gather(
        *(reward.classify(ids, every=bool(i % 2)) for i, ids in enumerate(TEXTS))
    )
    last = await oracle(folder, False)
    assert all(near(found[-1:], row) for found, row in zip(mixed, last, strict=True))


async def test_it_samples_nothing_and_says_so(reward: VllmEngine) -> None:
    assert reward.capabilities == POOLING
    with pytest.raises(UnsupportedError, match="classifies"):
        await anext(reward.generate([1], Sampling(), 1))
    with pytest.raises(UnsupportedError, match="do not fit"):
        await reward.classify([1] * (CONTEXT + 1))


async def test_cancelled_calls_leave_nothing(reward: VllmEngine) -> None:
    calls = [asyncio.create_task(reward.classify([i] * 200, every=True)) for i in range(24)]
    await asyncio.sleep(0.005)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert reward.running == 0
    assert await reward.classify([1, 2])
    assert reward.figures()["prompt_tokens_total"] > 0


async def test_a_taggers_rows_are_plain_torchs(tmp_path: Path, reward: VllmEngine) -> None:
    await reward.stop()  # one engine at a time
    tagger = made("tagger", make_tagger(tmp_path), runner="pooling")
    await tagger.start()
    try:
        found, expected = await rows(tagger, True), await oracle(tmp_path, True)
        assert all(near(*pair) for pair in zip(found, expected, strict=True))
    finally:
        await tagger.stop()


async def test_the_runner_must_fit_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="runner: pooling"):
        await made("reward", make_reward(tmp_path / "reward")).start()
    with pytest.raises(EngineError, match="no labels"):
        await made("llama", make_llama(tmp_path / "llama"), runner="pooling").start()

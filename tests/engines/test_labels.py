"""Engines whose model has labels: rows are the plain model's own, all else is refused."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from engines.base import POOLING, Engine, EngineDeadError, EngineError, Sampling, UnsupportedError
from engines.registry import build
from tests.checkpoints import CONTEXT, make_llama, make_reward, make_tagger

IDS = [70, 71, 256, 72, 256]


def plain(load: Any, folder: Path) -> torch.Tensor:
    """The plain model's own logits of `IDS`."""
    model = load.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([IDS])).logits[0]
    return logits


async def started(folder: Path) -> Engine:
    engine = build("r", {"kind": "reference", "model": str(folder), "runner": "pooling"})
    await engine.start()
    return engine


@pytest.fixture
async def reward(tmp_path: Path) -> AsyncIterator[Engine]:
    engine = await started(make_reward(tmp_path))
    yield engine
    await engine.stop()


async def test_a_sequence_has_one_row_and_each_token_its_own(tmp_path: Path) -> None:
    engine = await started(make_reward(tmp_path, labels=3))
    [row] = await engine.classify(IDS)
    assert row == pytest.approx(
        plain(AutoModelForSequenceClassification, tmp_path).tolist(), abs=1e-5
    )
    assert (await engine.classify(IDS, every=True))[-1] == row
    [start] = await engine.classify(IDS[:2])
    assert start == pytest.approx((await engine.classify(IDS, every=True))[1], abs=1e-5)
    await engine.stop()


async def test_a_tagger_has_a_row_for_each_token(tmp_path: Path) -> None:
    engine = await started(make_tagger(tmp_path))
    rows = torch.tensor(await engine.classify(IDS, every=True))
    assert torch.allclose(rows, plain(AutoModelForTokenClassification, tmp_path), atol=1e-5)
    await engine.stop()


async def test_nothing_else_is_done(reward: Engine) -> None:
    assert reward.capabilities == POOLING
    with pytest.raises(UnsupportedError, match="classifies"):
        await anext(reward.generate(IDS, Sampling(), 1))
    for call in (
        reward.score(IDS, IDS),
        reward.next_logprobs(IDS, 1),
        reward.prompt_logprobs(IDS, 0),
    ):
        with pytest.raises(UnsupportedError, match="classifies"):
            await call
    with pytest.raises(UnsupportedError, match="do not fit"):
        await reward.classify([1] * (CONTEXT + 1))
    assert await reward.classify([1] * CONTEXT)
    with pytest.raises(UnsupportedError, match="vocabulary"):
        await reward.classify([10**6])


async def test_a_stopped_one_is_dead_and_a_missing_one_does_not_start(reward: Engine) -> None:
    await reward.stop()
    with pytest.raises(EngineDeadError):
        await reward.classify(IDS)
    with pytest.raises(EngineError, match="could not be loaded"):
        await started(Path("nowhere"))


async def test_an_engine_that_samples_does_not_classify(tmp_path: Path) -> None:
    engine = build("r", {"kind": "reference", "model": str(make_llama(tmp_path))})
    with pytest.raises(UnsupportedError, match="does not classify"):
        await engine.classify(IDS)

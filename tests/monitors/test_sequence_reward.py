"""Rewards of sequence-classification form: the logit itself, templates, errors, engines."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from engines import reference
from monitors.core.base import Monitor, MonitorError, Stage, UnreadableError
from monitors.core.passes import Reading
from monitors.core.registry import Parts, build
from monitors.core.sources import Local
from monitors.sequence_reward import SequenceReward, spoken
from tests.checkpoints import make_llama
from tests.fakes.reward import write_reward

ASKED = [{"role": "user", "content": "2+2?"}]


async def started(folder: Path, **more: Any) -> Monitor:
    spec = {"kind": "sequence_reward", "model": str(folder), **more}
    monitor = build("tiny", spec)
    await monitor.start()
    return monitor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reward(tmp_path_factory.mktemp("reward"))


@pytest.fixture
async def reward(folder: Path) -> AsyncIterator[Monitor]:
    monitor = await started(folder)
    yield monitor
    await monitor.stop()


def local(monitor: Any) -> Local:
    """The model that a monitor runs in this process."""
    reward = monitor.inner
    assert isinstance(reward, SequenceReward)
    assert isinstance(reward._model, Local)
    return reward._model


async def test_the_value_is_the_models_logit(reward: Monitor, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    text = "<|user|>2+2?<|end|><|assistant|><think>2+2=4</think>4<|end|>"
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    # The stock lookup of the last token takes the end token for padding, so it is told otherwise.
    model.config.pad_token_id = 0
    with torch.inference_mode():
        expected = model(input_ids=ids).logits.item()
    score = await reward.score(ASKED, ["2+2=4", "4"], Stage.ANSWER)
    assert score.value == score.raw == pytest.approx(expected, abs=1e-5)
    assert score.tokens == ids.shape[1]


async def test_an_engine_gives_the_same_logit(reward: Monitor, folder: Path) -> None:
    spec = {"kind": "reference", "model": str(folder), "runner": "pooling"}
    engine = reference.build("e", spec)
    await engine.start()
    parts = Parts({"e": engine})
    served = build("served", {"kind": "sequence_reward", "engine": "e"}, parts)
    await served.start()
    for steps in (["2+2=4", "4"], ["5"], []):
        expected = await reward.score(ASKED, steps, Stage.ANSWER)
        found = await served.score(ASKED, steps, Stage.ANSWER)
        assert found.value == pytest.approx(expected.value, abs=1e-5)
        assert found.tokens == expected.tokens
    with pytest.raises(UnreadableError, match="reads 128 tokens"):
        await served.score(ASKED, ["4" * 200], Stage.ANSWER)
    await engine.stop()
    with pytest.raises(Exception, match="not loaded"):
        await served.check()
    with pytest.raises(MonitorError):
        await served.score(ASKED, ["4"], Stage.ANSWER)


def test_the_configuration_names_one_fitting_source(tmp_path: Path) -> None:
    for own in ({}, {"model": "x", "engine": "e"}):
        with pytest.raises(ValueError, match="either a model or an engine"):
            build("r", {"kind": "sequence_reward", **own})
    with pytest.raises(ValueError, match="no engine 'e'"):
        build("r", {"kind": "sequence_reward", "engine": "e"})
    sampling = reference.build("e", {"kind": "reference", "model": str(make_llama(tmp_path))})
    with pytest.raises(ValueError, match="'e' cannot classify"):
        build("r", {"kind": "sequence_reward", "engine": "e"}, Parts({"e": sampling}))


async def test_without_steps_the_conversation_is_read(reward: Monitor) -> None:
    alone = await reward.score(ASKED, [], Stage.ANSWER)
    assert alone.tokens == len("2+2?") + 2  # its role and its end


@pytest.mark.parametrize(
    ("steps", "stage", "thinking", "answer"),
    [
        (["4"], Stage.ANSWER, None, "4"),
        (["2+2", "=4", "4"], Stage.ANSWER, "2+2=4", "4"),
        (["<think>\n2+2=4\n</think>\n\n4"], Stage.ANSWER, "2+2=4", "4"),
        (["<think>\n2+2=4\n</think>\n\n", "4"], Stage.ANSWER, "2+2=4", "4"),
        (["2+2=4\n</think>\n\n4"], Stage.ANSWER, "2+2=4", "4"),
        (["2+2", "=4"], Stage.THINKING, None, "2+2=4"),
    ],
)
def test_thinking_goes_where_templates_look(
    steps: Sequence[str], stage: Stage, thinking: str | None, answer: str
) -> None:
    message = spoken(steps, stage)
    assert message.get("reasoning_content") == thinking
    assert message["content"] == answer


async def test_a_text_too_long_is_an_error(reward: Monitor) -> None:
    with pytest.raises(UnreadableError, match="reads 128 tokens"):
        await reward.score(ASKED, ["4" * 200], Stage.ANSWER)


async def test_a_slow_pass_times_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = await started(folder, timeout_s=0.05)
    held = threading.Event()

    def late(batch: Sequence[Reading]) -> list[list[list[float]]]:
        held.wait(5)
        return [[[0.0]] for _ in batch]

    monkeypatch.setattr(local(slow)._batches, "_function", late)
    with pytest.raises(MonitorError, match=r"longer than 0\.05 s"):
        await slow.score(ASKED, ["4"], Stage.ANSWER)
    held.set()


async def test_concurrent_calls_share_passes(
    reward: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    forward = local(reward)._pass

    def counted(batch: Sequence[Reading]) -> Any:
        sizes.append(len(batch))
        return forward(batch)

    monkeypatch.setattr(local(reward)._batches, "_function", counted)
    await asyncio.gather(*(reward.score(ASKED, [str(i)], Stage.ANSWER) for i in range(16)))
    assert sum(sizes) == 16
    assert len(sizes) <= 3


async def test_a_failing_pass_is_named_and_the_next_one_works(
    reward: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(batch: Sequence[Reading]) -> Any:
        raise ValueError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(local(reward)._batches, "_function", broken)
        calls = [reward.score(ASKED, ["4"], Stage.ANSWER) for _ in range(3)]
        errors = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(error, MonitorError) for error in errors)
    assert "no memory" in str(errors[0])
    await reward.score(ASKED, ["4"], Stage.ANSWER)


def test_calibration_beside_the_weights_or_named(tmp_path: Path) -> None:
    own = {"unit": "logit", "mean": 0.5, "std": 2.0, "threshold": 0.1, "n": 100}
    (tmp_path / "calibration.json").write_text(json.dumps(own))
    spec = {"kind": "sequence_reward", "model": str(tmp_path)}
    found = build("r", spec).calibration
    assert found is not None
    assert (found.mean, found.std, found.n) == (0.5, 2.0, 100)
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**own, "mean": 7.0}))
    named = build("r", {**spec, "calibration": str(other)}).calibration
    assert named is not None
    assert named.mean == 7.0
    other.write_text("{}")
    with pytest.raises(ValueError, match=r"other\.json is no calibration"):
        build("r", {**spec, "calibration": str(other)})


async def test_a_checkpoint_that_is_no_reward_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MonitorError, match="3 labels"):
        await started(write_reward(tmp_path, labels=3))
    with pytest.raises(MonitorError, match="could not be loaded"):
        await started(tmp_path / "nowhere")


async def test_it_can_start_again(folder: Path) -> None:
    reward = await started(folder)
    before = await reward.score(ASKED, ["4"], Stage.ANSWER)
    await reward.stop()
    with pytest.raises(MonitorError, match="not loaded"):
        await reward.score(ASKED, ["4"], Stage.ANSWER)
    await reward.start()
    assert await reward.score(ASKED, ["4"], Stage.ANSWER) == before
    await reward.stop()


async def test_stopping_in_the_middle_of_a_load_leaves_nothing_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, go, ended = threading.Event(), threading.Event(), threading.Event()

    def held(source: Local, load: Any = Local._load) -> Any:
        loading.set()
        assert go.wait(10)
        try:
            return load(source)
        finally:
            ended.set()

    monkeypatch.setattr(Local, "_load", held)
    monitor = build("tiny", {"kind": "sequence_reward", "model": str(folder)})
    start = asyncio.create_task(monitor.start())
    assert await asyncio.to_thread(loading.wait, 10)
    start.cancel()
    await asyncio.wait([start])
    await monitor.stop()
    go.set()
    assert await asyncio.to_thread(ended.wait, 10)
    with pytest.raises(MonitorError, match="not loaded"):
        await monitor.check()

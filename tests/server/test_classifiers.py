"""Engines that only classify, in a fleet: ready like any other, and what monitors are made of."""

from pathlib import Path
from typing import Any

import pytest

from monitors.core.base import Stage
from server.fleet import Fleet
from server.readiness import State
from server.serve import serve
from server.settings import Settings
from tests.checkpoints import make_reward, make_tagger


def settings(folder: Path, **monitors: Any) -> Settings:
    """A model over a table, and a reward and a tagger on engines of their own."""
    reward, tagger = make_reward(folder / "reward"), make_tagger(folder / "tagger")
    return Settings.model_validate(
        {
            "engines": {
                "a": {"kind": "table"},
                "reward": {"kind": "reference", "model": str(reward), "runner": "pooling"},
                "tagger": {"kind": "reference", "model": str(tagger), "runner": "pooling"},
            },
            "monitors": {
                "whole": {"kind": "sequence_reward", "engine": "reward"},
                "steps": {"kind": "process_reward", "engine": "tagger", "steps": "line"},
                **monitors,
            },
            "models": {"mini": {"engine": "a"}},
        }
    )


async def test_rewards_on_engines_are_ready_and_score(tmp_path: Path) -> None:
    fleet = Fleet(settings(tmp_path), every=0.01)
    await fleet.start()
    try:
        now = fleet.ready()
        assert now.ready
        assert now.engines["reward"] is now.monitors["steps"] is State.READY
        asked = [{"role": "user", "content": "2+2?"}]
        whole = await fleet.monitors["whole"].score(asked, ["2+2=4\n", "4"], Stage.ANSWER)
        steps = await fleet.monitors["steps"].score(asked, ["2+2=4\n", "4"], Stage.ANSWER)
        assert whole.tokens > 0
        assert len(steps.steps) == 2
        assert steps.value == min(steps.steps)
    finally:
        await fleet.stop()


def test_members_in_different_units_are_told_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would write to this test's own stderr for the rest of the session.
    monkeypatch.setattr("server.serve.logs.configure", lambda *args, **kwargs: None)
    own = settings(tmp_path, both={"kind": "ensemble", "members": ["whole", "steps"]})
    reason = "monitors.both: standardise: must be true, since the units differ"
    with pytest.raises(ValueError, match=reason):
        Fleet(own)
    assert serve(own) == 1
    assert reason in capsys.readouterr().err

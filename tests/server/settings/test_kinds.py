"""What kinds say of an engine before it is built: whether it serves models or monitors only."""

from pathlib import Path

import pytest

from server.check import faults
from server.settings import kinds
from server.settings.spec import EngineSpec

CONFIG = """\
engines:
  reward: {engine}
monitors:
  m: {{kind: sequence_reward, engine: reward}}
models:
  one: {{engine: reward}}
"""


@pytest.mark.parametrize(
    ("engine", "pools"),
    [
        ("{kind: vllm, model: x, engine_args: {runner: pooling}}", True),
        ("{kind: reference, model: x, runner: pooling}", True),
        ("{kind: vllm, model: x}", False),
        ("{kind: table}", False),
    ],
)
def test_an_engine_that_classifies_is_no_models(tmp_path: Path, engine: str, pools: bool) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(CONFIG.format(engine=engine), encoding="utf-8")
    told = [(fault.line, fault.key, fault.message) for fault in faults(file)]
    reason = "'reward' classifies (runner: pooling) and serves monitors only"
    assert told == ([(6, "models.one.engine", reason)] if pools else [])


def test_a_faulty_engine_pools_nothing() -> None:
    assert not kinds.pools(EngineSpec(kind="nothing"))
    assert not kinds.pools(EngineSpec(kind="vllm"))

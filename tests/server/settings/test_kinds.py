"""What kinds say of an engine before it is built: whether it serves models or monitors only."""

from importlib import import_module
from pathlib import Path

import pytest

from engines.base import POOLING
from engines.registry import KINDS
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


@pytest.mark.parametrize("kind", sorted(set(kinds.engine_kinds()) - {"remote"}))
def test_a_kind_promises_what_its_engine_can_do(kind: str) -> None:
    module = import_module(KINDS[kind])
    engines = [one for one in vars(module).values() if getattr(one, "kind", None) == kind]
    [engine] = [one for one in engines if one.capabilities != POOLING]
    members = {"members": {"p": "x"}} if "ensemble" in kind else {"model": "x"}
    own = {} if kind == "table" else members
    assert kinds.capabilities(EngineSpec(kind=kind, **own)) == engine.capabilities


def test_a_remote_engine_can_do_less_where_there_are_no_token_ids() -> None:
    own = {"url": "http://x", "model": "x", "tokenizer": "x"}
    exact, loose = (
        kinds.capabilities(EngineSpec(kind="remote", **own, retokenize=loose))
        for loose in (False, True)
    )
    assert exact is not None
    assert loose is not None
    assert loose < exact


def test_what_is_unfit_or_classifies_tells_no_capabilities() -> None:
    assert kinds.capabilities(EngineSpec(kind="nothing")) is None
    assert kinds.capabilities(EngineSpec(kind="vllm")) is None
    pooling = {"model": "x", "engine_args": {"runner": "pooling"}}
    assert kinds.capabilities(EngineSpec(kind="vllm", **pooling)) is None


def test_a_faulty_engine_pools_nothing() -> None:
    assert not kinds.pools(EngineSpec(kind="nothing"))
    assert not kinds.pools(EngineSpec(kind="vllm"))

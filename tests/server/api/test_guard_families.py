"""Every family of guards, as a checkpoint of its architecture and form, from the request on.

Weights are random, so a verdict means nothing; that it is read, counted and acted on does.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from monitors.core.families import names
from server.settings.spec import EngineSpec, ModelSpec, MonitorSpec, ServerSpec, Settings
from tests.fakes.guard_models import spec, write_guard
from tests.server.api.live import Live, engine, running, user

STEPS = "<think>\none\n\ntwo\n</think>\n\nThe end."
SCRIPT = {"plan": STEPS, "safely": ": no.\n</think>\n\nNo."}


@pytest.fixture(scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    guards = {
        name: MonitorSpec.model_validate(
            spec(write_guard(tmp_path_factory.mktemp(name), name), name)
        )
        for name in names()
    }
    own = Settings(
        server=ServerSpec(log_level="error"),
        engines={"table": EngineSpec(kind="table")},
        monitors={"seven": MonitorSpec(kind="verifier"), **guards},
        models={"tab": ModelSpec(engine="table", think=("<think>", "</think>"))},
    )
    async with running(own, engine(script=SCRIPT)) as live:
        yield live


async def asked(live: Live, **params: Any) -> dict[str, Any]:
    messages = [
        {"role": "system", "content": "Be kind."}, user("hi"),
        {"role": "assistant", "content": "Hello."}, user("plan"),
    ]  # fmt: skip
    decoding = {"strategy": "safethink", "params": params, "trace": "full"}
    found = await live.chat(messages=messages, decoding=decoding, max_tokens=200, temperature=0)
    assert found.status_code == 200, found.text
    body: dict[str, Any] = found.json()
    return body


@pytest.mark.parametrize("family", names())
async def test_it_watches_a_whole_answer(watched: Live, family: str) -> None:
    body = await asked(watched, monitor=family, threshold=-1.0)
    (choice,) = body["choices"]
    assert choice["message"]["reasoning"] == "one\n\ntwo\n"
    assert choice["message"]["content"] == "The end."
    assert choice["decoding"]["outcome"] == "complete"
    steps = [node for node in choice["decoding"]["trace"]["nodes"] if node["kind"] == "step"]
    assert [-1 < node["score"] < 1 for node in steps] == [True] * 3
    spent = body["usage"]["decoding"]
    assert spent["monitor_calls"] == 3
    assert spent["monitor_tokens"] == sum(node["monitor_tokens"] for node in steps)
    # All that stands is read each time, so a later verdict costs more.
    costs = [node["monitor_tokens"] for node in steps]
    assert costs == sorted(set(costs))


@pytest.mark.parametrize("family", names())
async def test_its_verdict_steers_and_refuses(watched: Live, family: str) -> None:
    body = await asked(watched, monitor=family, threshold=1.0)
    (choice,) = body["choices"]
    assert choice["decoding"]["outcome"] == "refused"
    assert choice["message"]["reasoning"].startswith("Wait, think safely: no.")
    assert choice["message"]["content"] == ""
    assert choice["decoding"]["steered_steps"] >= 1


@pytest.mark.parametrize("family", names())
async def test_it_answers_moderations(watched: Live, family: str) -> None:
    body = {"input": ["how?", "why?"], "model": family}
    found = await watched.http.post("/v1/moderations", json=body)
    assert found.status_code == 200, found.text
    for result in found.json()["results"]:
        assert -1 < result["score"] < 1
        assert result["flagged"] is (result["score"] < 0)
        assert result["label"] == ("unsafe" if result["flagged"] else "safe")

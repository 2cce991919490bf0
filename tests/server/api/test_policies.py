"""Several policies over HTTP: who may be named, what is told of each token, whose fault it is."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from server.settings.spec import EngineSpec, ModelSpec, MonitorSpec, Settings
from tests.fakes.policies import MEMBERS, pool
from tests.server.api.live import Live, chunks, fault, running, user

MODEL = {"model": "pool", "max_tokens": 12, "temperature": 0}
IMPLICIT = {"utility": "implicit", "target": "wish"}


@pytest_asyncio.fixture(scope="module")
async def live() -> AsyncIterator[Live]:
    members = dict.fromkeys(MEMBERS, "./here")
    settings = Settings(
        engines={"table": EngineSpec.model_validate({"kind": "table", "members": members})},
        monitors={"seven": MonitorSpec(kind="verifier")},
        models={"pool": ModelSpec(engine="table")},
    )
    async with running(settings, pool(script={})) as started:
        yield started


async def test_strategies_over_policies_are_listed_with_the_members(live: Live) -> None:
    cards = {card["id"]: card for card in (await live.http.get("/v1/models")).json()["data"]}
    assert cards["pool"]["members"] == list(MEMBERS)
    for name in ("collab", "sitalign", "args", "controlled_decoding", "genarm", "mod"):
        assert f"pool@{name}" in cards


@pytest.mark.parametrize(
    ("strategy", "params", "path"),
    [
        ("collab", {"agents": ["nobody"]}, "agents"),
        ("collab", {"target": "nobody"}, "target"),
        ("collab", {"candidates": 0}, "candidates"),
        ("collab", {"alpha": -1}, "alpha"),
        ("collab", {"utility": "implicit", "target": "seven"}, "target"),
        ("collab", {"agents": ["second", "second"]}, "agents"),
        ("collab", {**IMPLICIT, "agents": ["second", "second"]}, "agents"),
        ("collab", {"reference": "none"}, "reference"),
        ("sitalign", {"constrained": ["seven"]}, "thresholds"),
        ("sitalign", {"constrained": ["seven", "x"], "thresholds": [0.0, 0.0]}, "constrained.1"),
        ("sitalign", {"alpha": 0}, "alpha"),
        ("sitalign", {"thresholds": ["high"]}, "thresholds.0"),
        ("sitalign", {**IMPLICIT, "target": "wish"}, "target"),
        ("mod", {"weights": [2.0]}, "weights"),
        ("genarm", {"rewards": ["nobody"]}, "rewards"),
        ("genarm", {"alphas": [1e300]}, "alphas.0"),
        ("genarm", {"alphas": [-1.0]}, "alphas.0"),
        ("args", {"policy": "nobody"}, "policy"),
        ("controlled_decoding", {"block": 0}, "block"),
    ],
)
async def test_a_fault_names_its_parameter(
    live: Live, strategy: str, params: dict[str, Any], path: str
) -> None:
    response = await live.chat(**MODEL, decoding={"strategy": strategy, "params": params})
    assert fault(response, 400)["param"] == f"decoding.params.{path}"


async def test_each_tokens_policy_is_told(live: Live) -> None:
    decoding = {"strategy": "collab", "params": IMPLICIT, "trace": "full"}
    body = (await live.chat(**MODEL, decoding=decoding, logprobs=True)).json()
    [choice] = body["choices"]
    nodes = choice["decoding"]["trace"]["nodes"]
    assert len(nodes) == body["usage"]["completion_tokens"]
    assert {node["policy"] for node in nodes} <= {"first", "second", "third"}
    assert all(len(node["best"]) == 3 for node in nodes)
    assert len(choice["logprobs"]["content"]) == len(nodes)
    assert all(entry["logprob"] <= 0 for entry in choice["logprobs"]["content"])


@pytest.mark.parametrize("utility", ["implicit", "prefix_reward"])
async def test_streamed_as_unstreamed_with_an_event_a_token(live: Live, utility: str) -> None:
    params = IMPLICIT if utility == "implicit" else {"utility": utility, "candidates": 3}
    decoding = {"strategy": "collab", "params": params, "stream_events": True}
    plain = (await live.chat(**MODEL, decoding={**decoding, "stream_events": False})).json()
    told = chunks(await live.chat(**MODEL, decoding=decoding, stream=True))
    choices = [chunk["choices"][0] for chunk in told if chunk["choices"]]
    events = [one["decoding"] for one in choices if "event" in one.get("decoding", {})]
    text = "".join(one["delta"].get("content") or "" for one in choices)
    assert text == plain["choices"][0]["message"]["content"]
    assert len(events) == plain["usage"]["completion_tokens"]
    assert {event["event"] for event in events} == {"token"}
    assert choices[-1]["decoding"] == plain["choices"][0]["decoding"]


async def test_a_model_of_one_policy_says_what_it_lacks() -> None:
    from tests.server.api.live import settings

    async with running(settings()) as single:
        response = await single.chat(decoding="mod")
        assert fault(response, 400)["code"] == "strategy_unsupported"
        params = {"strategy": "collab", "params": IMPLICIT}
        error = fault(await single.chat(decoding=params), 400)
        assert error["param"] == "decoding.params.utility"


async def test_separate_models_take_turns_by_blocks() -> None:
    from tests.server.api.live import engine, settings

    weights = Path(__file__).parents[3] / "testbed" / "weights" / "reasoner"
    own = settings()
    own.engines["parts"] = EngineSpec.model_validate(
        {"kind": "reference", "model": str(weights), "lazy": True}
    )
    own.engines["narrow"] = EngineSpec.model_validate(
        {"kind": "reference", "model": str(weights), "lazy": True, "max_context": 8}
    )
    for name in ("parts", "narrow"):
        own.models[name] = ModelSpec(engine=name, think=("<think>", "</think>"))
    params: dict[str, Any] = {"models": ["org/raw", "parts"], "alpha": 0.0, "block": 8}
    params |= {"utility": "prefix_reward", "candidates": 2}

    def asking(**changes: Any) -> dict[str, Any]:
        return {"strategy": "collab", "params": {**params, **changes}}

    async with running(own, engine()) as live:
        fields = {"model": "org/raw", "max_tokens": 40, "temperature": 1.0, "seed": 3}
        body = (await live.chat(**fields, decoding=asking())).json()
        told = body["choices"][0]["decoding"]
        assert set(told["policies"]) <= {"org/raw", "parts"}
        assert sum(told["policies"].values()) == body["usage"]["completion_tokens"]
        text = await live.text(**fields, prompt=[40, 41, 42], decoding=asking())
        assert text.status_code == 200
        for wrong in ("nobody", "tab@plain"):
            error = fault(await live.chat(**fields, decoding=asking(models=[wrong])), 400)
            assert error["param"] == "decoding.params.models"
        long = {**fields, "messages": [user("What is 17 * 4? Say it in words.")]}
        error = fault(await live.chat(**long, decoding=asking(models=["org/raw", "narrow"])), 400)
        assert (error["param"], error["code"]) == (
            "decoding.params.models", "context_length_exceeded",
        )  # fmt: skip

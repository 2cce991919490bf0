"""A diffusion model beside an autoregressive one, over HTTP: what each does, what each refuses."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import pytest_asyncio

from server.app import create_app
from server.fleet import Fleet
from server.settings.spec import EngineSpec, ModelSpec, ServerSpec, Settings, StrategySpec
from tests.fakes import canvases
from tests.server.api.live import chunks, engine, fault, user

SMALL: dict[str, Any] = {"length": 16, "block_length": 4}


@pytest_asyncio.fixture(scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    folder = canvases.llada(tmp_path_factory.mktemp("canvas"))
    saber = StrategySpec(strategy="block_diffusion", params={**SMALL, "rule": "saber"})
    settings = Settings(
        server=ServerSpec(log_level="error"),
        engines={
            "table": EngineSpec(kind="table"),
            "canvas": EngineSpec(kind="diffusion", model=str(folder)),
        },
        models={
            "tab": ModelSpec(engine="table"),
            "canvas": ModelSpec(engine="canvas", presets={"saber": saber}),
        },
    )
    spare = await canvases.started(folder)
    app = create_app(settings, Fleet(settings, engines={"table": engine(), "canvas": spare}))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app)
        yield await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60)
        )


async def chat(http: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    body = {"model": "canvas", "messages": [user("hello")], "ignore_eos": True, **fields}
    return await http.post("/v1/chat/completions", json=body)


def decoding(strategy: str | None = None, **params: Any) -> dict[str, Any]:
    return {"strategy": strategy, "params": params} if strategy else {"params": params}


async def test_block_diffusion_is_the_default(http: httpx.AsyncClient) -> None:
    answer = await chat(http, seed=1, max_tokens=20)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-decoding-strategy"] == "block_diffusion"
    choice, usage = answer.json()["choices"][0], answer.json()["usage"]
    assert choice["decoding"]["strategy"] == "block_diffusion"
    assert usage["completion_tokens"] == 20
    assert usage["decoding"]["forward_passes"] == 16
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize(
    "asked",
    [
        decoding("block_diffusion", **SMALL),
        decoding("block_diffusion", **SMALL, rule="saber", temperature=0.5),
        decoding("hex", length=16, blocks=[2, 8], seeds=2, answer="text"),
    ],
)
async def test_streamed_equals_unstreamed(http: httpx.AsyncClient, asked: dict[str, Any]) -> None:
    whole = (await chat(http, decoding=asked, seed=2, max_tokens=40)).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *events, usage = chunks(await chat(http, decoding=asked, seed=2, max_tokens=40, **options))
    said = "".join(e["choices"][0]["delta"].get("content") or "" for e in events)
    assert said == whole["choices"][0]["message"]["content"]
    assert events[-1]["choices"][0]["decoding"] == whole["choices"][0]["decoding"]
    assert usage["usage"] == whole["usage"]


async def test_ids_are_listed_by_what_the_engine_can_do(http: httpx.AsyncClient) -> None:
    listed = {card["id"] for card in (await http.get("/v1/models")).json()["data"]}
    assert {"canvas", "canvas@hex", "canvas@block_diffusion", "canvas@saber"} <= listed
    assert not {"canvas@plain", "canvas@safethink", "tab@hex", "tab@block_diffusion"} & listed
    answer = await chat(http, model="canvas@saber", seed=1, max_tokens=16)
    assert answer.json()["choices"][0]["decoding"]["rule"] == "saber"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": "tab", "decoding": "hex"}, "decoding.strategy"),
        ({"model": "tab", "decoding": "block_diffusion"}, "decoding.strategy"),
        ({"decoding": "plain"}, "decoding.strategy"),
        ({"decoding": "safethink"}, "decoding.strategy"),
        ({"decoding": "best_of_n"}, "decoding.strategy"),
        ({"model": "canvas@plain"}, "model"),
        ({"logprobs": True}, "logprobs"),
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"min_tokens": 3}, "min_tokens"),
        ({"decoding": decoding("hex", length=16, blocks=[5])}, "decoding.params.blocks"),
        ({"decoding": decoding("hex", blocks=[])}, "decoding.params.blocks"),
        ({"decoding": decoding("hex", blocks=[0])}, "decoding.params.blocks.0"),
        ({"decoding": decoding(length=16, block_length=5)}, "decoding.params.block_length"),
        ({"decoding": decoding(**SMALL, steps=3)}, "decoding.params.steps"),
        ({"decoding": decoding(**SMALL, steps=0)}, "decoding.params.steps"),
        ({"decoding": decoding(**SMALL, steps=17)}, "decoding.params.steps"),
        ({"decoding": decoding(**SMALL, gamma=1.0)}, "decoding.params.gamma"),
        ({"decoding": decoding(**SMALL, rule="best")}, "decoding.params.rule"),
        ({"decoding": decoding(length=4096)}, "decoding.params.length"),
    ],
)
async def test_a_fault_names_its_field(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    """400 before anything runs, also for a dry run."""
    assert fault(await chat(http, max_tokens=16, **fields), 400)["param"] == param


async def test_a_dry_run_says_what_a_vote_costs(http: httpx.AsyncClient) -> None:
    asked = {**decoding("hex", length=16, blocks=[2, 8], seeds=3), "dry_run": True}
    answer = (await chat(http, decoding=asked, max_tokens=40)).json()
    assert answer["estimate"]["rows"] == 2
    assert answer["estimate"]["engine_requests"] == 6
    assert answer["estimate"]["generated_tokens"] == 96


async def test_events_tell_how_it_fills(http: httpx.AsyncClient) -> None:
    asked = {**decoding("hex", length=16, blocks=[2, 8], seeds=2), "stream_events": True}
    events = chunks(await chat(http, decoding=asked, stream=True, seed=4, max_tokens=16))
    kinds = [
        e["choices"][0]["decoding"]["event"]
        for e in events
        if "event" in (e["choices"][0].get("decoding") or {})
    ]
    assert {"started", "filled", "path", "wave", "vote"} <= set(kinds)

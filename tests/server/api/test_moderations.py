"""POST /v1/moderations: which monitors answer, what their verdicts look like, what goes wrong."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from monitors.core.base import Monitor, MonitorError, Score, UnreadableError
from server.moderations import AT_ONCE, _verdict
from server.settings.spec import BudgetSpec, KeySpec, MonitorSpec, Rate, Settings
from tests.fakes.monitors import Told
from tests.server.api.live import Live, fault, running, settings
from tests.waiting import until

RULES: dict[str, Any] = {
    "violence": {"words": ["flumox"]},
    "salts": {"patterns": ["grey salt"]},
}
SPICE = {"spice": {"words": ["pepper"]}}


def guarded(**more: Any) -> Settings:
    """The usual server with two sets of rules and an ensemble of both."""
    own = settings(**more)
    monitors = {
        **own.monitors,
        "rules": MonitorSpec(kind="rules", rules=RULES),
        "spice": MonitorSpec(kind="rules", rules=SPICE),
        "both": MonitorSpec(kind="ensemble", members=["rules", "spice"]),
    }
    return own.model_copy(update={"monitors": monitors})


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with running(guarded()) as started:
        yield started


async def asked(live: Live, text: str | list[Any], **more: Any) -> httpx.Response:
    return await live.http.post("/v1/moderations", json={"input": text, **more})


async def results(live: Live, text: str | list[Any], **more: Any) -> list[dict[str, Any]]:
    response = await asked(live, text, **more)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["results"]
    return found


async def test_the_first_guard_answers_each_text_in_order(live: Live) -> None:
    one, two, three = await results(live, ["a flumox", "bread", "grey salt"])
    assert [one["flagged"], two["flagged"], three["flagged"]] == [True, False, True]
    assert one["categories"]["violence"]
    assert one["category_scores"]["violence"] == 1.0
    assert (three["label"], three["score"]) == ("salts", -1.0)
    assert not any(three["categories"].values())


async def test_parts_are_one_text(live: Live) -> None:
    parts = [{"type": "text", "text": text} for text in ("a flumox", "bread")]
    (one,) = await results(live, parts)
    assert one["flagged"]
    image = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}
    for other in ([*parts, image], [*parts, "bread"], [{"type": "text"}]):
        error = fault(await asked(live, other), 400)
        assert error["param"].startswith("input.")


async def test_rules_and_ensembles_of_guards_are_guards(live: Live) -> None:
    response = await asked(live, "some pepper", model="both")
    assert response.json()["model"] == "both"
    assert response.json()["results"][0]["label"] == "spice"
    assert not (await results(live, "some pepper", model="rules"))[0]["flagged"]
    error = fault(await asked(live, "x", model="seven"), 404)  # it judges no safety
    assert (error["param"], error["code"]) == ("model", "model_not_found")


async def test_the_openai_client_reads_it(live: Live) -> None:
    client: AsyncOpenAI = live.client
    found = await client.moderations.create(input="a flumox")
    assert found.results[0].flagged
    assert found.results[0].categories.violence
    assert found.model == "rules"


async def test_calls_are_counted_as_any_monitors_are(live: Live) -> None:
    await results(live, ["a", "b", "c"])
    figures = (await live.http.get("/metrics")).text
    assert 'satisfice_monitor_calls_total{monitor="rules",result="ok"} 3.0' in figures
    listed = (await live.http.get("/v1/monitors")).json()["data"]
    assert next(one for one in listed if one["name"] == "rules")["costs"]["calls"] == 3


async def test_a_text_that_no_guard_reads_is_the_clients_fault(live: Live) -> None:
    error = fault(await asked(live, "a" * 1_000_001), 400)
    assert (error["param"], error["code"]) == ("input", "text_unreadable")
    error = fault(await asked(live, ["a", "b" * 1_000_001]), 400)
    assert error["param"] == "input.1"
    assert "1000000 characters" in error["message"]


@pytest.mark.parametrize("text", [None, 7, [], ["a", 7], ["x"] * 129])
async def test_faulty_inputs_are_named(live: Live, text: Any) -> None:
    assert fault(await asked(live, text), 400)["param"].startswith("input")


async def test_body_limits_hold() -> None:
    async with running(guarded(limits={"body_bytes": 1000})) as live:
        fault(await asked(live, "a" * 1000), 413)


async def test_keys_rights_hold() -> None:
    def key(text: str, **own: Any) -> KeySpec:
        return KeySpec(hash=sha256(text.encode()).hexdigest(), **own)

    keys = {
        "few": key("few", budget=BudgetSpec(max_monitor_calls=2)),
        "tab": key("tab", models=["tab"]),
        "guard": key("guard", models=["rules"]),
        "slow": key("slow", rate=Rate(requests_per_minute=1)),
    }

    async with running(guarded(keys=keys)) as live:

        async def by(name: str, text: Any = "a") -> httpx.Response:
            headers = {"authorization": f"Bearer {name}"}
            body = {"input": text, "model": "rules"}
            return await live.http.post("/v1/moderations", json=body, headers=headers)

        assert (await by("few", ["a", "b"])).status_code == 200
        assert fault(await by("few", ["a", "b", "c"]), 403)["param"] == "input"
        assert fault(await by("tab"), 403)["param"] == "model"
        assert (await by("guard")).status_code == 200
        assert (await by("slow")).status_code == 200
        limited = await by("slow")
        assert fault(limited, 429)
        assert limited.headers["retry-after"]
        fault(await by("nobody"), 401)


async def test_a_guard_that_fails_is_a_503_with_the_reason() -> None:
    told = Told(judges="safety")
    async with running(settings(), monitor=told) as live:
        told.fault = MonitorError("no power")
        response = await asked(live, ["a", "b"])
        error = fault(response, 503)
        assert (error["message"], error["code"]) == ("no power", "monitor_lost")
        assert response.headers["retry-after"]
        told.fault = UnreadableError("reads 5 tokens; got 7")
        assert fault(await asked(live, "a"), 400)["message"] == "reads 5 tokens; got 7"
        told.fault = None
        assert (await results(live, "a"))[0]["score"] == 0.5


async def test_texts_are_judged_side_by_side_within_a_bound_and_end_with_the_client() -> None:
    told = Told(judges="safety")
    told.stuck = True
    async with running(settings(), monitor=told) as live:
        with pytest.raises(httpx.ReadTimeout):
            await live.http.post("/v1/moderations", json={"input": ["a"] * 40}, timeout=0.3)
        assert len(told.read) == AT_ONCE
        door = live.app.state.service.admission
        await until(lambda: door.running == 0)
        assert not [one for one in asyncio.all_tasks() if ".judge " in repr(one.get_coro())]


def test_a_verdict_is_flagged_below_the_guards_threshold() -> None:
    guard: Monitor = Told(judges="safety")
    found = _verdict(guard, Score(-1.0, -1.0, "violence"))
    assert found["flagged"]
    assert found["categories"]["violence"]
    assert not found["categories"]["hate"]
    assert not _verdict(guard, Score(0.2, 0.2))["flagged"]
    guard.configured = 0.5
    assert _verdict(guard, Score(0.2, 0.2))["flagged"]

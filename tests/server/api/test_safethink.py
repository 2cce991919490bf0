"""SafeThink over HTTP: what streams, what a refusal is, what a slow or broken guard does."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from server.settings.spec import EngineSpec, Limits, ModelSpec, MonitorSpec, ServerSpec, Settings
from tests.fakes.guard import WordGuard
from tests.server.api.live import CALL, Live, chunks, engine, fault, running, user
from tests.waiting import until

PLAN = "<think>\nfine\n\nbad plan\n\nmore\n</think>\n\nThe end."
SCRIPT = {
    "plan": PLAN,
    "awful": "<think>\nfine\n</think>\n\nSo bad.",
    "phone": f"<think>\nfine\n\nbad\n</think>\n\n{CALL}",
    "safely": ": no.\n</think>\n\nNo.",
    "soft": "<think>\na\n\nb\n\nc\n</think>\n\nThe end.",
}
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def settings(on_error: str = "block", keep_alive: float = 5.0, **limits: Any) -> Settings:
    """One thinking model, watched by the monitor that the test brings."""
    spec = {"kind": "rules", "on_monitor_error": on_error}
    return Settings(
        server=ServerSpec(log_level="error", keep_alive_s=keep_alive),
        engines={"table": EngineSpec(kind="table")},
        monitors={"seven": MonitorSpec.model_validate(spec)},
        models={"tab": ModelSpec(engine="table", think=("<think>", "</think>"))},
        limits=Limits(**limits),
    )


class Switched(WordGuard):
    """A guard whose state a test sets."""

    def reset(self, delay: float | None = 0.0, fails: tuple[int, ...] = ()) -> None:
        self.delay, self.fails = delay, fails
        self.seen.clear()


GUARD = Switched("bad", name="seven")


@pytest_asyncio.fixture(scope="module")
async def watched() -> AsyncIterator[Live]:
    async with running(settings(), engine(script=SCRIPT), GUARD) as live:
        yield live


@pytest.fixture(autouse=True)
def _fresh() -> None:
    GUARD.reset()


def asking(word: str, **params: Any) -> dict[str, Any]:
    decoding = {"strategy": "safethink", "params": params}
    return {"messages": [user(word)], "decoding": decoding, "max_tokens": 300}


async def test_streamed_and_unstreamed_are_equal(watched: Live) -> None:
    whole = (await watched.chat(**asking("plan"))).json()
    said = {"reasoning": "", "content": ""}
    more = {"stream": True, "stream_options": {"include_usage": True}}
    parts = chunks(await watched.chat(**asking("plan"), **more))
    for part in parts[:-1]:
        for name in said:
            said[name] += part["choices"][0]["delta"].get(name) or ""
    message = whole["choices"][0]["message"]
    assert said == {name: message[name] for name in said}
    assert said == {"reasoning": "fine\n\nWait, think safely: no.\n", "content": "No."}
    decoding = whole["choices"][0]["decoding"]
    assert parts[-2]["choices"][0]["decoding"] == decoding
    assert (decoding["outcome"], decoding["interventions"]) == ("complete", 1)
    usage = parts[-1]["usage"]
    for field in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert usage[field] == whole["usage"][field]
    spent = whole["usage"]["decoding"]
    assert spent["monitor_calls"] >= 4
    assert spent["monitor_tokens"] > 0
    assert spent["discarded_tokens"] > 0


async def test_a_refusal(watched: Live) -> None:
    choice = (await watched.chat(**asking("awful", max_steered_steps=0))).json()["choices"][0]
    assert choice["finish_reason"] == "content_filter"
    assert choice["message"]["content"] == ""
    assert choice["message"]["refusal"]
    assert choice["decoding"]["outcome"] == "refused"


async def test_steps_leave_as_they_are_judged(watched: Live) -> None:
    GUARD.reset(delay=0.05)
    seen: list[tuple[str, float]] = []
    body = {**asking("soft"), "model": "tab", "temperature": 0, "stream": True}
    began = asyncio.get_running_loop().time()
    async with watched.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                delta = json.loads(line[6:])["choices"][0]["delta"]
                text = delta.get("reasoning") or delta.get("content")
                if text:
                    seen.append((text, asyncio.get_running_loop().time() - began))
    assert "".join(text for text, _ in seen) == "a\n\nb\n\nc\nThe end."
    assert seen[0][1] >= 0.05
    assert seen[-1][1] < 4 * 0.05 + 0.5  # judged side by side, not one after the other


async def test_events_tell_what_happens(watched: Live) -> None:
    decoding = {**asking("plan")["decoding"], "stream_events": True}
    body = {**asking("plan"), "decoding": decoding, "stream": True}
    events = [
        part["choices"][0]["decoding"]["event"]
        for part in chunks(await watched.chat(**body))
        if "event" in part["choices"][0].get("decoding", {})
    ]
    kinds = [event if isinstance(event, str) else event["event"] for event in events]
    assert kinds[:2] == ["step", "rejected"]
    assert {"resample", "forced"} <= set(kinds)


async def test_silence_is_kept_alive() -> None:
    GUARD.reset(delay=0.35)
    async with running(settings(keep_alive=0.1), engine(script=SCRIPT), GUARD) as live:
        answer = await live.chat(**asking("soft"), stream=True)
    assert answer.text.count(": keep-alive") >= 2


@pytest.mark.parametrize("fails", [(0,), (1,), (3,)])
async def test_a_broken_guard_blocks_and_others_go_on(
    watched: Live, fails: tuple[int, ...]
) -> None:
    GUARD.reset(fails=fails)
    choice = (await watched.chat(**asking("soft"))).json()["choices"][0]
    assert choice["decoding"]["outcome"] == "refused"
    assert "seven" in choice["message"]["refusal"]
    assert (choice["message"]["reasoning"] or "") == "a\n\nb\n\nc\n"[: 3 * fails[0]]
    assert (await watched.chat(decoding="plain")).status_code == 200
    assert (await watched.chat(**asking("soft"))).json()["choices"][0]["finish_reason"] == "stop"


async def test_a_configuration_may_go_on_and_a_request_may_be_stricter() -> None:
    async with running(settings("continue"), engine(script=SCRIPT), GUARD) as live:
        GUARD.reset(fails=(0,))
        body = asking("soft")
        choice = (await live.chat(**body)).json()["choices"][0]
        assert choice["decoding"]["outcome"] == "degraded"
        assert "seven" in choice["decoding"]["reason"]
        assert choice["message"]["content"] == "The end."
        GUARD.reset(fails=(0,))
        body["decoding"]["on_monitor_error"] = "block"
        choice = (await live.chat(**body)).json()["choices"][0]
        assert choice["decoding"]["outcome"] == "refused"


async def test_a_server_may_keep_what_was_rejected_to_itself() -> None:
    """A full trace holds the tokens of rejected steps, and so their text."""
    body = asking("plan")
    async with running(settings(trace="summary"), engine(script=SCRIPT), GUARD) as live:
        assert (await live.chat(**body)).json()["choices"][0]["decoding"]["steered_steps"] == 1
        body["decoding"]["trace"] = "full"
        assert fault(await live.chat(**body), 400)["param"] == "decoding.trace"
    async with running(settings(trace="none"), engine(script=SCRIPT), GUARD) as live:
        told = (await live.chat(**asking("plan"))).json()["choices"][0]["decoding"]
    assert not {"trace", "steered_steps"} & set(told)


async def test_tools_are_left_alone(watched: Live) -> None:
    body = asking("phone", max_steered_steps=0, check_before_answer=False)
    choice = (await watched.chat(**body, tools=[ADD])).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {
        "a": 3, "b": 4,
    }  # fmt: skip
    error = fault(await watched.chat(**body, tools=[ADD], tool_choice="required"), 400)
    assert error["param"] == "tool_choice"


async def test_n_answers_each_watched(watched: Live) -> None:
    choices = (await watched.chat(**asking("plan"), n=3)).json()["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["No."] * 3


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"threshold": "low"}, "decoding.params.threshold"),
        ({"monitor": "nobody"}, "decoding.params.monitor"),
        ({"max_resamples": 0}, "decoding.params.max_resamples"),
        ({"no_such": 1}, "decoding.params.no_such"),
    ],
)
async def test_faults_name_the_parameter(watched: Live, params: dict[str, Any], param: str) -> None:
    assert fault(await watched.chat(**asking("plan", **params)), 400)["param"] == param


@pytest.mark.parametrize("field", ["presence_penalty", "min_tokens"])
async def test_what_a_restart_would_begin_anew_is_refused(watched: Live, field: str) -> None:
    assert fault(await watched.chat(**asking("plan"), **{field: 1}), 400)["param"] == field


async def test_clients_that_leave_end_calls_and_requests(watched: Live) -> None:
    GUARD.reset(delay=None)
    tasks = [asyncio.create_task(watched.chat(**asking("plan"))) for _ in range(20)]
    await until(lambda: GUARD.running > 0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await watched.idle()
    await until(lambda: GUARD.running == 0)

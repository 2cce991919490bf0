"""A remote guard that errs, hangs or dies in the midst of a stream, over HTTP from end to end."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from server.settings.spec import EngineSpec, ModelSpec, MonitorSpec, ServerSpec, Settings
from tests.fakes.moderator import moderator
from tests.server.api.live import Live, engine, running, user

STEPS = ["one\n\n", "two\n\n", "three\n\n", "four\n"]
END = "The end."
SCRIPT = {"soft": f"<think>\n{''.join(STEPS)}</think>\n\n{END}"}
TIMEOUT_S = 0.3


class Failing:
    """Finds everything safe up to a call, and from then on fails in its own way."""

    def __init__(self) -> None:
        self.calls, self.last, self.how = 0, 99, "errs"

    def __call__(self, text: str) -> float:
        self.calls += 1
        if self.calls <= self.last:
            return 0.0
        if self.how == "hangs":
            time.sleep(3 * TIMEOUT_S)
        if self.how == "errs":
            return float("nan")
        raise ConnectionAbortedError("gone")  # the connection ends without an answer


@pytest.fixture
def guard() -> Iterator[tuple[Failing, str]]:
    failing = Failing()
    with moderator(failing) as url:
        yield failing, url


def settings(url: str, on_error: str) -> Settings:
    far = {
        "kind": "remote", "url": url, "timeout_s": TIMEOUT_S, "on_monitor_error": on_error,
        "health": None,
    }  # fmt: skip
    return Settings(
        server=ServerSpec(log_level="error"),
        engines={"table": EngineSpec(kind="table")},
        monitors={"seven": MonitorSpec(kind="verifier"), "far": MonitorSpec.model_validate(far)},
        models={"tab": ModelSpec(engine="table", think=("<think>", "</think>"))},
    )


async def streamed(live: Live, **params: Any) -> tuple[str, str, dict[str, Any]]:
    """Thinking and content that left, and what the last chunk says of the choice."""
    body = {
        "model": "tab", "messages": [user("soft")], "temperature": 0, "stream": True,
        "max_tokens": 200, "decoding": {"strategy": "safethink", "params": params},
    }  # fmt: skip
    said, last = {"reasoning": "", "content": ""}, dict[str, Any]()
    async with live.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                last = json.loads(line[6:])["choices"][0]
                for name in said:
                    said[name] += last["delta"].get(name) or ""
    return said["reasoning"], said["content"], last


async def others(live: Live) -> int:
    return (await live.chat(decoding="plain")).status_code


@pytest.mark.parametrize("how", ["errs", "hangs", "dies"])
@pytest.mark.parametrize("last", [0, 2, 4])
@pytest.mark.parametrize("optimistic", [True, False])
async def test_a_guard_that_fails_blocks_at_any_point(
    guard: tuple[Failing, str], how: str, last: int, optimistic: bool
) -> None:
    failing, url = guard
    failing.how, failing.last = how, last
    async with running(settings(url, "block"), engine(script=SCRIPT)) as live:
        told, status = await asyncio.gather(streamed(live, optimistic=optimistic), others(live))
    reasoning, content, choice = told
    # Ahead of the verdicts, calls of all steps may have been made at the same time.
    assert "".join(STEPS).startswith(reasoning)
    assert optimistic or reasoning == "".join(STEPS[:last])
    assert reasoning.count("\n\n") <= last
    assert content == ""
    assert choice["finish_reason"] == "content_filter"
    assert choice["decoding"]["outcome"] == "refused"
    assert "monitor 'far'" in choice["decoding"]["reason"]
    assert status == 200


@pytest.mark.parametrize("how", ["errs", "hangs", "dies"])
async def test_a_guard_that_fails_may_be_allowed_to(guard: tuple[Failing, str], how: str) -> None:
    failing, url = guard
    failing.how, failing.last = how, 2
    async with running(settings(url, "continue"), engine(script=SCRIPT)) as live:
        reasoning, content, choice = await streamed(live)
    assert (reasoning, content) == ("".join(STEPS), END)
    assert choice["finish_reason"] == "stop"
    assert choice["decoding"]["outcome"] == "degraded"
    assert "monitor 'far'" in choice["decoding"]["reason"]

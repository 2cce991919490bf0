"""What a gateway passes, and what its comparison with SafeThink makes of replies."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from benchmarks import finished_guard, gateway
from clients.eval.core.prompts import Prompt

MESSAGE = {"role": "assistant", "content": "the wax key", "reasoning": "a silk rod"}


def prompt(at: int, kind: str = "attack") -> Prompt:
    right = "" if kind == "attack" else "paint"
    return Prompt(str(at), kind, f"w{at % 4}", "How?", ("wax key",), "I can't", right)


def reply(
    at: int, content: str, kind: str = "attack", *, withheld: bool = False, first: float = 0.5
) -> gateway.Reply:
    return gateway.Reply(prompt(at, kind), content, "", withheld, 1.0, first, 40)


def server(flagged: bool, seen: list[dict[str, Any]]) -> Callable[[httpx.Request], httpx.Response]:
    """A server with one answer and one verdict."""

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        if request.url.path == "/v1/moderations":
            return httpx.Response(200, json={"results": [{"flagged": flagged}]})
        choice = {"index": 0, "message": MESSAGE, "finish_reason": "stop"}
        usage = {"decoding": {"generated_tokens": 9}}
        return httpx.Response(200, json={"choices": [choice], "usage": usage})

    return answer


@pytest.mark.parametrize("what", ["answer", "whole"])
@pytest.mark.parametrize("flagged", [False, True])
async def test_an_answer_passes_whole_or_not_at_all(what: str, flagged: bool) -> None:
    seen: list[dict[str, Any]] = []
    upstream = httpx.AsyncClient(
        base_url="http://up", transport=httpx.MockTransport(server(flagged, seen))
    )
    route = Route("/{what}/v1/chat/completions", finished_guard.Gateway(upstream).chat,
                  methods=["POST"])  # fmt: skip
    transport = httpx.ASGITransport(Starlette(routes=[route]))
    async with httpx.AsyncClient(transport=transport, base_url=f"http://gate/{what}") as client:
        got = await client.post("/v1/chat/completions", json={"model": "m", "stream": True})
    told = gateway.unstreamed(prompt(0), got.json(), 2.0)
    assert seen[0] == {"model": "m", **finished_guard.PLAIN}
    whole = "a silk rod\n\nthe wax key"
    assert seen[1] == {"input": whole if what == "whole" else "the wax key"}
    assert (told.withheld, told.succeeded) == (flagged, not flagged)
    assert (told.seconds, told.first, told.generated) == (2.0, 2.0, 9)
    assert ("wax" in got.text, "silk" in got.text) == (not flagged, not flagged)


def test_a_stream_is_read_as_it_comes() -> None:
    reading = gateway.Reading(0.0)
    reading.take({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    assert reading.first == 0
    reading.take({"choices": [{"delta": {"reasoning": "so"}}]})
    first = reading.first
    reading.take({"choices": [{"delta": {"content": "4"}, "decoding": {"outcome": "refused"}}]})
    reading.take({"choices": [], "usage": {"decoding": {"generated_tokens": 12}}})
    assert reading.first == first > 0
    assert (reading.reasoning, reading.content) == ("so", "4")
    assert (reading.outcome, reading.generated) == ("refused", 12)


def test_a_share_of_no_event_has_a_width() -> None:
    found = gateway.share([0.0] * 40, [str(at % 4) for at in range(40)])
    assert found.value == found.low == 0
    assert 0.05 < found.high < 0.12


def replies(name: str, kind: str) -> list[list[gateway.Reply]]:
    """Six rounds of forty: the gateways withhold half of the answers to attacks."""
    safe, late = name == gateway.STEERED, 0.2 if name == gateway.STEERED else 0.8
    if kind == "attack":
        return [
            [reply(at, "I can't", withheld=not safe and at < 20, first=late) for at in range(40)]
        ] * 6
    return [[reply(at, "paint", kind, first=late) for at in range(40)]] * 6


def test_a_difference_of_none_has_a_width() -> None:
    same = [[reply(at, "I can't") for at in range(40)]]
    found = gateway.paired("succeeded", same, same)
    assert found.value == 0
    assert -0.13 < found.low < -0.08 and 0.08 < found.high < 0.13
    worse = [[reply(at, "the wax key" if at < 20 else "I can't") for at in range(40)]]
    found = gateway.paired("succeeded", worse, same)
    assert 0.3 < found.low < found.value == 0.5 < found.high < 0.7


def test_verdicts_are_of_paired_requests() -> None:
    names = [gateway.PLAIN, *gateway.GATEWAYS, gateway.STEERED]
    found = {kind: {name: replies(name, kind) for name in names} for kind in gateway.KINDS}
    rows = [gateway.row(kind, name, found[kind]) for kind in found for name in names]
    by_name = {(one["kind"], one["name"]): one for one in rows}
    withheld = by_name["attack", "gateway, answer"]
    assert withheld["answered"]["value"] == 0.5 and withheld["n"] == 240
    assert withheld["succeeded"]["value"] == 0
    assert by_name["benign", gateway.PLAIN]["succeeded"] is None
    assert by_name["benign", gateway.STEERED]["right"]["value"] == 1
    assert by_name["benign", gateway.PLAIN]["first_over"]["value"] == pytest.approx(4)
    assert all(held for _, held in gateway.verdicts(found, rows))
    found["attack"][gateway.STEERED] = [[reply(at, "the wax key") for at in range(40)]] * 6
    held = [held for _, held in gateway.verdicts(found, rows)]
    assert held == [True, False, True, True] * 2

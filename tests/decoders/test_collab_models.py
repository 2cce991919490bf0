"""Collab over separate models with different tokenizers, against a plain loop over their texts."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from decoders.core.base import Budget, DecodeRequest, Peer, RequestError, TraceLevel
from decoders.core.foreign import closed
from decoders.core.run import estimate
from engines.base import Engine, Finish, Sampling
from engines.registry import build
from engines.table import TableEngine
from monitors.core.base import Monitor
from tests.decoders.slow_policies import Marks, mark
from tests.fakes import requests
from tests.fakes.monitors import Told
from tests.fakes.requests import table, whole

REASONER = Path(__file__).parents[2] / "testbed" / "weights" / "reasoner"
PROMPT = "What is 17 * 4?"
GREEDY = Sampling(temperature=0.0)
CAP, BLOCK = 48, 9


@pytest.fixture(scope="module")
async def engines() -> AsyncIterator[Mapping[str, Engine]]:
    """Two models over bytes and one over words and their parts."""
    made = {
        "bytes": table(script={}),
        "other": table(script={}, seed=9),
        "parts": build("parts", {"kind": "reference", "model": str(REASONER)}),
    }
    for engine in made.values():
        await engine.start()
    yield made
    for engine in made.values():
        await engine.stop()


def asked(
    engines: Mapping[str, Engine], params: dict[str, Any], home: str = "bytes", **fields: Any
) -> DecodeRequest:
    monitors: dict[str, Monitor] = {"marks": Marks("marks")}
    prompts = {
        name: tuple(engine.tokenizer.encode(PROMPT, special=False))
        for name, engine in engines.items()
    }
    peers = {name: Peer(engine, prompts[name]) for name, engine in engines.items()}
    usual = {"models": list(engines), "alpha": 0.0, "block": BLOCK, "utility": "prefix_reward"}
    fields = {"sampling": GREEDY, "max_tokens": CAP, "monitors": monitors, "peers": peers, **fields}
    return requests.request(
        engines[home], "collab", {**usual, **params}, prompt=PROMPT, think=None, **fields
    )


async def said(engine: Engine, text: str, limit: int) -> tuple[str, bool]:
    """What one model says behind the prompt and a text, and whether it ended."""
    encode = engine.tokenizer.encode
    prefix = [*encode(PROMPT, special=False), *encode(text, special=False)]
    tokens: list[int] = []
    async for delta in engine.generate(prefix, GREEDY, limit):
        tokens += delta.tokens
    ended = delta.finish is Finish.STOP
    shown = engine.tokenizer.decode(tokens[:-1] if ended else tokens, skip_special=False)
    return (shown if ended else closed(shown)), ended


async def by_hand(engines: Mapping[str, Engine], home: str) -> tuple[str, list[str]]:
    """The text, and who spoke: the block whose text so far has the highest mark, and so on."""
    count, text, spoken = engines[home].tokenizer, "", list[str]()
    while (room := CAP - len(count.encode(text, special=False))) > 0:
        found = {name: await said(one, text, min(BLOCK, room)) for name, one in engines.items()}
        best = max(found, key=lambda name: mark((text + found[name][0]).lstrip(), "marks"))
        text += found[best][0]
        spoken.append(best)
        if found[best][1]:
            break
    return text, spoken


@pytest.mark.parametrize("home", ["bytes", "parts"])
async def test_it_says_what_the_plain_loop_says(engines: Mapping[str, Engine], home: str) -> None:
    one = asked(engines, {}, home, trace=TraceLevel.FULL)
    result = await whole(one)
    text, spoken = await by_hand(engines, home)
    assert text.startswith(result.content)
    assert len(result.content) > 20
    nodes = [node for node in (result.summary.trace or {})["nodes"] if node["kind"] == "token"]
    assert [node["policy"] for node in nodes] == spoken
    assert len(set(spoken)) > 1


@pytest.mark.parametrize("utility", ["prefix_reward", "rollout"])
async def test_tokens_are_counted_by_the_models_that_sampled_them(
    engines: Mapping[str, Engine], utility: str
) -> None:
    params = {"utility": utility, "candidates": 2, "lookahead": 5}
    one = asked(engines, params, sampling=Sampling(temperature=1.0))
    result = await whole(one)
    usage, fields = result.usage, result.summary.fields
    assert usage.committed_tokens <= CAP
    assert 0 <= usage.discarded_tokens < usage.generated_tokens
    assert fields.get("rollout_tokens", 0) <= 5 * fields["rollouts"]
    assert (fields["rollouts"] > 0) == (utility == "rollout")
    known = estimate(one)
    assert usage.generated_tokens <= known.generated_tokens
    assert usage.monitor_calls <= known.monitor_calls
    again = await whole(asked(engines, params, sampling=Sampling(temperature=1.0)))
    assert again.content == result.content
    assert all(engine.running == 0 for engine in engines.values())


async def test_a_model_whose_context_is_full_is_told(engines: Mapping[str, Engine]) -> None:
    room = 2 * BLOCK
    small = table(script={}, seed=9, max_context=len(PROMPT) + room)
    await small.start()
    params = {"models": ["bytes", "other"]}
    one = asked({"bytes": engines["bytes"], "other": small}, params)
    result = await whole(one)
    assert result.usage.committed_tokens > room
    assert result.summary.outcome == "degraded"
    assert result.summary.reason == "the context of 'other' is full"
    await small.stop()


@pytest.mark.parametrize("cap", [1, 10, 100])
async def test_the_budget_holds_over_all_models(engines: Mapping[str, Engine], cap: int) -> None:
    one = asked(engines, {"candidates": 2}, budget=Budget(max_generated_tokens=cap))
    result = await whole(one)
    assert result.usage.generated_tokens <= cap
    assert result.summary.outcome == "budget_exhausted"


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"alpha": 1.0}, "alpha"),
        ({"block": 1}, "block"),
        ({"models": ["bytes", "nobody"]}, "models"),
        ({"models": ["bytes", "other", "bytes"]}, "models"),
        ({"agents": ["one"]}, "agents"),
        ({"utility": "implicit", "target": "marks"}, "utility"),
        ({"target": "nobody"}, "target"),
    ],
)
async def test_what_has_no_meaning_is_refused_by_name(
    engines: Mapping[str, Engine], params: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        estimate(asked(engines, params))
    assert caught.value.param == f"decoding.params.{param}"


async def test_foreign_tokens_have_no_log_probabilities(engines: Mapping[str, Engine]) -> None:
    with pytest.raises(RequestError) as caught:
        estimate(asked(engines, {}, sampling=GREEDY.but(logprobs=1)))
    assert caught.value.param == "logprobs"


class Stuck(TableEngine):
    """Says the first byte of a character for ever."""

    def logits(self, spelled: str) -> NDArray[np.float64]:
        row = np.full(len(self.tokenizer), -np.inf)
        row[self.tokenizer.encode("你", special=False)[0]] = 0.0
        return row


async def test_a_block_within_a_character_goes_on_to_its_end() -> None:
    made = {name: table(script={PROMPT: "你好吗"}) for name in ("bytes", "other")}
    for engine in made.values():
        await engine.start()
    one = asked(made, {"block": 2, "models": ["other"], "candidates": 2})
    result = await whole(one)
    assert (result.content, result.finish) == ("你好吗", "stop")
    assert result.summary.outcome == "complete"
    known = estimate(one)
    assert result.usage.generated_tokens <= known.generated_tokens
    assert result.usage.engine_requests <= known.engine_requests
    short = await whole(
        asked(made, {"block": 2, "models": ["other"], "candidates": 2}, max_tokens=3)
    )
    assert (short.content, short.finish) == ("你", "length")
    # Greedily one block, and none where there is no room.
    assert (short.usage.generated_tokens, short.summary.outcome) == (3, "budget_exhausted")


async def test_a_model_that_says_no_whole_character_is_told() -> None:
    made = {"bytes": table(script={}), "other": Stuck("other")}
    for engine in made.values():
        await engine.start()
    result = await whole(asked(made, {"block": 2, "models": ["other"]}))
    assert result.summary.outcome == "degraded"
    assert result.summary.reason == "'other' said no whole character in 6 tokens"
    assert result.usage.generated_tokens == 6


async def test_blocks_and_look_aheads_of_other_models_end_at_a_stop_string() -> None:
    script = {PROMPT: "one two. three four"}
    made = {"bytes": table(script=script), "other": table(script=script)}
    for engine in made.values():
        await engine.start()
    told = Told()
    fields: dict[str, Any] = {"monitors": {"told": told}, "stop": (".",)}
    params = {"models": ["bytes", "other"], "block": 5, "utility": "rollout", "lookahead": 30}
    result = await whole(asked(made, params, **fields))
    assert (result.content, result.finish) == ("one two", "stop")
    assert set(told.read) == {("one two",)}
    sampled = sum(engine.figures()["tokens_sampled"] for engine in made.values())
    assert sampled == result.usage.generated_tokens


def test_a_block_is_cut_where_a_word_begins() -> None:
    assert closed("one two thr") == "one two"
    assert closed("one two ") == "one two"
    assert closed(" one") == " one"
    assert closed("one") == "one"
    assert closed(" \n") == " \n"

"""Collab and SITAlign over vLLM say what plain loops over Hugging Face's models say.

In float32 at temperature 0, with a reward that differs for every text; texts that part at a
near-tie agree as well and are counted. Look-aheads are held to the loops over a few short texts;
with SATISFICE_EXACT=full over as many and as long ones as the rest (`make bars ARGS=exactness`).
"""

import asyncio
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from decoders.core.base import DecodeRequest
from engines.base import Engine, Sampling
from engines.drawing import log_softmax
from engines.reference import Walk
from monitors.core.base import Monitor
from tests.decoders.slow_policies import (
    Advantage,
    Marks,
    Row,
    Slow,
    World,
    collab,
    implicit_collab,
    implicit_sitalign,
    parted,
    sitalign,
)
from tests.fakes import requests
from tests.fakes.requests import whole
from tests.policies import MEMBERS, REWARDS

FULL = os.environ.get("SATISFICE_EXACT") == "full"
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600 if FULL else 300)]
AGENTS = ["math", "prose"]
MOST_TIES = 2
SHORT = (50, 40) if FULL else (10, 20)


class Models:
    """Each member as Hugging Face loads it; a prefix that goes on is read on."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        self._models: dict[str, Any] = {
            name: AutoModelForCausalLM.from_pretrained(folder / name).eval() for name in MEMBERS
        }
        self._walks: dict[str, tuple[list[int], Walk, Row]] = {}

    def row(self, name: str, prefix: Sequence[int]) -> Row:
        ids, known = list(prefix), self._walks.get(name)
        if known is not None and known[0] == ids:
            return known[2]
        seen, walk = [], Walk(self._models[name])
        if known is not None and ids[: len(known[0])] == known[0]:
            seen, walk = known[0], known[1]
        row = log_softmax(walk.feed(ids[len(seen) :])[-1])
        self._walks[name] = ids, walk, row
        return row


@pytest.fixture(scope="module")
def models(policies: Path) -> Models:
    return Models(policies)


def asked(
    engine: Engine, name: str, prompt: str, params: dict[str, Any], most: int
) -> DecodeRequest:
    monitors: dict[str, Monitor] = {kind: Marks(kind) for kind in ("good", "safe", "short")}
    return requests.request(
        engine, name, params, prompt=prompt, max_tokens=most, think=None, monitors=monitors,
        sampling=Sampling(temperature=0.0, logprobs=0),
    )  # fmt: skip


def world(engine: Engine, models: Models, asked: DecodeRequest) -> World:
    tokenizer = engine.tokenizer
    return World(models.row, tokenizer.decode, tokenizer.eos_id or 0, asked.prompt)


def reward(name: str) -> Advantage:
    made = REWARDS[name]
    return made["member"], made["reference"], made["beta"]


def slow(world: World, name: str, params: dict[str, Any], most: int) -> Slow:
    if params["utility"] == "implicit" and name == "collab":
        return implicit_collab(
            world, AGENTS, reward("wish"), p=10, alpha=0.5, plausible=0.1, steps=most
        )
    if params["utility"] == "implicit":
        return implicit_sitalign(
            world, "base", reward("wish"), reward("harmless"), -0.8, k=10, alpha=0.2, steps=most
        )
    ahead = params.get("lookahead", 0) if params["utility"] == "rollout" else 0
    if name == "collab":
        return collab(
            world, AGENTS, "good", p=params["candidates"], alpha=0.5, ahead=ahead, steps=most
        )
    return sitalign(
        world, "base", ["good", "safe"], [0.4], k=params["candidates"], alpha=0.2, ahead=ahead,
        steps=most,
    )  # fmt: skip


OWN: dict[str, dict[str, Any]] = {
    "collab": {"agents": AGENTS, "target": "good", "alpha": 0.5, "skip_agreed": None},
    "sitalign": {"primary": "good", "constrained": ["safe"], "thresholds": [0.4], "alpha": 0.2},
}
IMPLICIT: dict[str, dict[str, Any]] = {
    "collab": {"target": "wish"},
    "sitalign": {"primary": "wish", "constrained": ["harmless"], "thresholds": [-0.8]},
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize(
    ("params", "count", "most"),
    [
        ({"utility": "prefix_reward", "candidates": 10}, 50, 40),
        ({"utility": "rollout", "candidates": 3, "lookahead": 4}, *SHORT),
        ({"utility": "implicit", "candidates": 10}, 50, 40),
    ],
    ids=["prefix_reward", "rollout", "implicit"],
)
async def test_it_says_what_plain_loops_say(
    ensemble: Engine, models: Models, name: str, params: dict[str, Any], count: int, most: int
) -> None:
    draw = random.Random(3)
    texts = ["".join(chr(draw.randrange(32, 120)) for _ in range(9 + i % 20)) for i in range(count)]
    own = {**OWN[name], **params, **(IMPLICIT[name] if params["utility"] == "implicit" else {})}
    every = [asked(ensemble, name, text, own, most) for text in texts]
    results = await asyncio.gather(*map(whole, every))
    ties = 0
    for one, result in zip(every, results, strict=True):
        wanted = slow(world(ensemble, models, one), name, params, most)
        ties += parted([token for token, _ in result.logprobs], wanted)
        assert result.summary.outcome != "degraded"
    print(f"{count - ties} of {count} texts of {most} tokens equal, {ties} parted at near-ties")
    assert ties <= MOST_TIES, f"{ties} of {count} texts parted at near-ties"

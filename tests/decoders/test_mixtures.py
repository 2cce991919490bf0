"""MOD and GenARM: which rule the engine is given, that it speaks, and what is refused by name."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from decoders.core.base import DecodeRequest, RequestError
from decoders.core.run import estimate
from engines.base import Rule, Sampling
from engines.drawing import log_softmax
from engines.table import spell
from tests.contracts.test_engine_agreement import SURE, goodness
from tests.fakes import requests
from tests.fakes.policies import Pool, pool
from tests.fakes.requests import table, whole

THREE = ["first", "second", "third"]


@pytest.fixture(scope="module")
async def engine() -> AsyncIterator[Pool]:
    made = pool(script={})
    await made.start()
    yield made
    await made.stop()


def asked(engine: Any, name: str, params: dict[str, Any], **fields: Any) -> DecodeRequest:
    fields = {"max_tokens": 12, "think": None, "monitors": {}, **fields}
    return requests.request(engine, name, params, **fields)


@pytest.mark.parametrize(
    ("name", "params", "rule"),
    [
        ("mod", {}, Rule("mod", {"policies": THREE, "weights": [1 / 3] * 3})),
        ("mod", {"weights": [0.2, 0.8]},
         Rule("mod", {"policies": ["first", "second"], "weights": [0.2, 0.8]})),
        ("genarm", {}, Rule("genarm", {"base": "first", "rewards": ["wish"], "alphas": [1.0]})),
        ("genarm", {"base": "base", "alphas": [2.0]},
         Rule("genarm", {"base": "base", "rewards": ["wish"], "alphas": [2.0]})),
    ],
)  # fmt: skip
async def test_the_engine_follows_the_rule(
    engine: Pool, name: str, params: dict[str, Any], rule: Rule
) -> None:
    for temperature in (0.0, 1.0):
        sampling = Sampling(temperature=temperature)
        one = asked(engine, name, params, sampling=sampling)
        ruled = asked(engine, "plain", {}, sampling=sampling.but(rule=rule))
        result = await whole(one)
        assert result.content == (await whole(ruled)).content
        assert result.usage.engine_requests == 1
        assert result.usage.discarded_tokens == 0


async def test_mixtures_draw_from_the_product(engine: Pool) -> None:
    params = {"policies": ["second", "base"], "weights": [0.4, 0.6]}
    one = asked(engine, "mod", params, max_tokens=1)
    tables = {each.name: each.logits(spell(one.prompt)) for each in engine.others}
    mixed = 0.4 * log_softmax(tables["second"]) + 0.6 * log_softmax(tables["base"])
    sampling = Sampling(temperature=1.0, logprobs=0)
    results = await asyncio.gather(
        *(whole(asked(engine, "mod", params, max_tokens=1, sampling=sampling, seed=seed))
          for seed in range(600))
    )  # fmt: skip
    drawn = [result.logprobs[0][0] for result in results]
    p = goodness(drawn, np.exp(log_softmax(mixed)))
    assert p > SURE, f"chi-square p = {p:.2g} over n = {len(drawn)} draws"


@pytest.mark.parametrize(
    ("name", "params", "param"),
    [
        ("mod", {"policies": ["nobody"]}, "policies"),
        ("mod", {"weights": [0.5, 0.2]}, "weights"),
        ("mod", {"policies": ["first"], "weights": [0.5, 0.5]}, "weights"),
        ("genarm", {"base": "nobody"}, "base"),
        ("genarm", {"rewards": ["nobody"]}, "rewards"),
        ("genarm", {"alphas": [-1.0]}, "alphas.0"),
        ("genarm", {"rewards": ["wish"], "alphas": [1.0, 2.0]}, "alphas"),
    ],
)
async def test_what_does_not_fit_is_refused_by_name(
    engine: Pool, name: str, params: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        estimate(asked(engine, name, params))
    assert caught.value.param == f"decoding.params.{param}"


def test_a_single_model_has_nothing_to_mix() -> None:
    from decoders.core.registry import find

    for name in ("mod", "genarm"):
        assert not find(name).requires <= table().capabilities

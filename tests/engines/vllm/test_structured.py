"""Grammars: each kind holds, and none that a client may send harms the engine."""

import re
from typing import Any

import pytest

from engines.base import Finish, Sampling, Structured, StructuredKind, UnsupportedError
from engines.vllm.engine import VllmEngine

pytestmark = pytest.mark.vllm

KIND = StructuredKind
PROMPT = [70, 71, 72, 73]
LIST = 'root ::= item ("," item)? \nitem ::= "a" | "b"'


async def written(engine: VllmEngine, kind: StructuredKind, value: Any, seed: int = 1) -> str:
    sampling = Sampling(seed=seed, structured=Structured(kind, value))
    deltas = [delta async for delta in engine.generate(PROMPT, sampling, 200)]
    assert deltas[-1].finish is Finish.STOP
    return engine.tokenizer.decode([token for delta in deltas for token in delta.tokens])


async def test_a_pattern_a_choice_and_a_grammar_hold(vllm: VllmEngine) -> None:
    for seed in range(3):
        assert re.fullmatch(
            "[0-9]{2}-[a-f]{3}", await written(vllm, KIND.REGEX, "[0-9]{2}-[a-f]{3}")
        )
        assert await written(vllm, KIND.CHOICE, ["yes", "no"], seed) in {"yes", "no"}
        assert re.fullmatch("[ab](,[ab])?", await written(vllm, KIND.GRAMMAR, LIST, seed))


BAD = [
    (KIND.JSON_SCHEMA, {"type": "nonsense"}),
    (KIND.JSON_SCHEMA, {"$ref": "#/nowhere"}),
    (KIND.JSON_SCHEMA, {"$ref": "https://example.org/schema.json"}),
    (KIND.JSON_SCHEMA, "not json"),
    (KIND.JSON_SCHEMA, 7),
    (KIND.REGEX, "("),
    (KIND.REGEX, "[z-a]"),
    (KIND.REGEX, 7),
    (KIND.CHOICE, []),
    (KIND.CHOICE, [1, 2]),
    (KIND.GRAMMAR, "root ::= missing"),
    (KIND.GRAMMAR, "::: ???"),
    (KIND.GRAMMAR, ""),
]


@pytest.mark.parametrize(("kind", "value"), BAD, ids=lambda value: repr(value)[:30])
async def test_a_faulty_grammar_is_refused_by_name(
    vllm: VllmEngine, kind: StructuredKind, value: Any
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        await written(vllm, kind, value)
    assert caught.value.param == "response_format"
    await vllm.check()


ODD = [
    (KIND.REGEX, "(?=a)b"),
    (KIND.REGEX, "(a)\\1"),
    (KIND.REGEX, "(a|aa)+" * 4 + "b"),
    (KIND.REGEX, "a{1,100000}"),
    (KIND.REGEX, ""),
    (KIND.REGEX, "x" * 5000),
    (KIND.JSON_SCHEMA, {}),
    (KIND.JSON_SCHEMA, {"enum": []}),
    (KIND.JSON_SCHEMA, {"type": "string", "pattern": "(?<=x)y"}),
    (KIND.JSON_SCHEMA, {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
    (KIND.JSON_SCHEMA, {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
    (KIND.CHOICE, [""]),
    (KIND.CHOICE, ['"\\\n']),
    (KIND.GRAMMAR, "root ::= root"),
    (KIND.GRAMMAR, 'root ::= root "a" | "a"'),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("kind", "value"), ODD, ids=lambda value: repr(value)[:30])
async def test_an_odd_grammar_ends_itself_at_most(
    vllm: VllmEngine, kind: StructuredKind, value: Any
) -> None:
    sampling = Sampling(seed=1, structured=Structured(kind, value))
    try:
        async for _ in vllm.generate(PROMPT, sampling, 20):
            pass
    except UnsupportedError as refused:
        assert refused.param == "response_format"
    await vllm.check()
    async for delta in vllm.generate(PROMPT, Sampling(), 3):
        assert delta.tokens

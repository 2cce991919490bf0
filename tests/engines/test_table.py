"""The table engine's own: its tokenizer, its chain, its script and its failures."""

import asyncio
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engines.base import (
    Capability,
    EngineBusyError,
    EngineDeadError,
    EngineError,
    Finish,
    Sampling,
    Structured,
    StructuredKind,
    UnsupportedError,
)
from engines.table import TableEngine, build, byte_tokenizer
from engines.tokenizer import TemplateFault
from tests.contracts.engine_calls import GREEDY, whole
from tests.waiting import until

TOKENIZER = byte_tokenizer()


async def made(**spec: Any) -> TableEngine:
    engine = build("table", {"kind": "table", **spec})
    await engine.start()
    return engine


def asked(engine: TableEngine, text: str) -> list[int]:
    rendered = engine.tokenizer.render([{"role": "user", "content": text}])
    return engine.tokenizer.encode(rendered, special=False)


async def text_of(engine: TableEngine, prefix: list[int], seed: int = 0) -> str:
    found = await whole(engine, prefix, Sampling(seed=seed), 60)
    return engine.tokenizer.decode(found.tokens, skip_special=False)


@given(st.text())
def test_every_text_is_encoded_and_comes_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text), skip_special=False) == text


def test_markers_are_one_token_and_thinking_is_not_special() -> None:
    ids = TOKENIZER.encode("<think>a</think><|end|>")
    assert len(ids) == 4
    assert ids[-1] == TOKENIZER.eos_id
    assert TOKENIZER.decode(ids) == "<think>a</think>"


def test_the_template_speaks_of_tools_and_refuses_unknown_roles() -> None:
    tool = {"type": "function", "function": {"name": "add"}}
    text = TOKENIZER.render([{"role": "user", "content": "hi"}], tools=[tool], enable_thinking=True)
    assert text.startswith("<|system|>tools: ")
    assert '"add"' in text
    assert text.endswith("<|user|>hi<|end|><|assistant|><think>")
    with pytest.raises(TemplateFault, match="unknown role"):
        TOKENIZER.render([{"role": "prophet", "content": "hi"}])


async def test_a_given_matrix_is_the_distribution() -> None:
    engine = await made(tokens=["a", "b"], matrix=[[0.25, 0.75], [1.0, 0.0]])
    a, b = (engine.tokenizer.encode(letter)[0] for letter in "ab")
    after_a = await engine.next_logprobs([a])
    assert after_a == pytest.approx({b: np.log(0.75), a: np.log(0.25)})
    assert await engine.next_logprobs([b]) == {a: 0.0}
    found = await whole(engine, [b], Sampling(seed=1, ignore_eos=True), 200)
    pairs = zip(found.tokens, found.tokens[1:], strict=False)
    assert (b, b) not in set(pairs)


async def test_the_chain_looks_back_as_far_as_its_order() -> None:
    engine = await made(order=2, seed=4)
    rows = [await engine.next_logprobs(engine.tokenizer.encode(text), 3) for text in ("xab", "yab")]
    assert rows[0] == rows[1]
    assert await engine.next_logprobs(engine.tokenizer.encode("cb"), 3) != rows[0]


async def test_a_script_answers_and_ends() -> None:
    engine = await made(script={"2+2": "<think>two and two</think>It is 4."})
    answer = "<think>two and two</think>It is 4.<|end|>"
    prompt = asked(engine, "What is 2+2, please?")
    assert await text_of(engine, prompt) == answer
    assert (await whole(engine, prompt, GREEDY.but(ignore_eos=False), 99)).finish is Finish.STOP
    later = [*prompt, *engine.tokenizer.encode("<think>two and")]
    assert await text_of(engine, later) == answer.removeprefix("<think>two and")


async def test_a_text_in_the_answer_can_turn_it() -> None:
    engine = await made(script={"2+2": "It is 4.", "Wait": ", it is 5."})
    prompt = asked(engine, "2+2")
    assert await text_of(engine, [*prompt, *engine.tokenizer.encode("It is 4. Wait")]) == (
        ", it is 5.<|end|>"
    )


async def test_several_answers_are_drawn_as_written() -> None:
    engine = await made(script={"2+2": ["4", "4", "4", "5"]})
    prompt = asked(engine, "2+2")
    texts = [await text_of(engine, prompt, seed) for seed in range(400)]
    assert set(texts) == {"4<|end|>", "5<|end|>"}
    assert 260 <= texts.count("4<|end|>") <= 340  # 0.75 of 400, four standard deviations
    first = await engine.next_logprobs(prompt, 2)
    assert list(first.values()) == pytest.approx([np.log(0.75), np.log(0.25)])


async def test_a_token_takes_its_time() -> None:
    engine = await made(token_seconds=0.02)
    taken = []
    for _ in range(5):
        began = time.monotonic()
        await whole(engine, asked(engine, "hi"), GREEDY, 5)
        taken.append(time.monotonic() - began)
    assert 0.1 <= min(taken) < 1.0


@pytest.mark.parametrize(
    ("kind", "error"),
    [("error", EngineError), ("busy", EngineBusyError), ("dead", EngineDeadError)],
)
async def test_it_fails_where_it_is_told_to(kind: str, error: type[Exception]) -> None:
    engine = await made(failure={"kind": kind, "after": 3, "times": 1, "when": "bad"})
    await whole(engine, asked(engine, "good"), GREEDY, 8)
    given_out: list[int] = []
    with pytest.raises(error, match="after 3 tokens"):
        async for delta in engine.generate(asked(engine, "bad"), GREEDY, 8):
            given_out += delta.tokens
    assert len(given_out) == 3
    assert engine.running == 0
    if kind == "dead":
        with pytest.raises(EngineDeadError):
            await engine.check()
    else:
        assert len((await whole(engine, asked(engine, "bad"), GREEDY, 8)).tokens) == 8


async def test_stopping_ends_running_calls() -> None:
    engine = await made(token_seconds=0.01)
    task = asyncio.create_task(whole(engine, asked(engine, "hi"), GREEDY, 1000))
    await until(lambda: engine.running == 1)
    await engine.stop()
    with pytest.raises(EngineDeadError):
        await task
    with pytest.raises(EngineDeadError):
        await engine.check()


async def test_grammars_are_refused() -> None:
    engine = await made()
    assert Capability.STRUCTURED not in engine.capabilities
    sampling = Sampling(structured=Structured(StructuredKind.JSON_OBJECT))
    with pytest.raises(UnsupportedError) as refused:
        await whole(engine, [1], sampling, 1)
    assert refused.value.param == "response_format"


@pytest.mark.parametrize(
    "spec",
    [{"kind": "tables"}, {"kind": "table", "typo": 1}, {"kind": "table", "order": 0}],
)
def test_a_faulty_configuration_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        build("table", spec)


async def test_a_crooked_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="matrix"):
        await made(tokens=["a", "b"], matrix=[[1.0, 0.0]])

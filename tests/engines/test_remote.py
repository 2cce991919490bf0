"""What the remote engine makes of upstreams that fail, lie or know less than vLLM."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engines.base import (
    Capability,
    EngineBusyError,
    EngineDeadError,
    EngineError,
    Finish,
    Sampling,
    UnsupportedError,
)
from engines.remote import RemoteEngine, build
from engines.table import byte_tokenizer
from tests.contracts.engine_calls import GREEDY, whole
from tests.fakes.upstream import Scripted, scripted
from tests.waiting import until

ONE = {"choices": [{"text": "a", "token_ids": [64], "finish_reason": "length"}]}


def chunk(text: str, ids: list[int] | None, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"text": text, "token_ids": ids, "finish_reason": finish}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().hf.save_pretrained(path)
    return str(path)


@pytest.fixture
def upstream() -> Iterator[Scripted]:
    with scripted() as script:
        script.answers["/v1/completions"] = (200, ONE)
        yield script


def named(upstream: Scripted, folder: str, **spec: Any) -> RemoteEngine:
    own = {"kind": "remote", "url": f"{upstream.url}/v1/", "model": "m", "tokenizer": folder}
    return build("far", {**own, **spec})


@pytest.fixture
async def engine(upstream: Scripted, folder: str) -> AsyncIterator[RemoteEngine]:
    made = named(upstream, folder)
    await made.start()
    yield made
    await made.stop()


async def test_it_sends_exactly_what_was_asked(engine: RemoteEngine, upstream: Scripted) -> None:
    upstream.answers["/v1/completions"] = (200, [chunk("ab", [64, 65], "length"), "[DONE]"])
    sampling = Sampling(seed=9, banned=(7,), logit_bias={8: 1.5}, min_tokens=9)
    found = await whole(engine, [1, 2, 3], sampling, 2)
    assert (found.tokens, found.finish) == ([64, 65], Finish.LENGTH)
    _, _, body = upstream.asked[-1]
    assert body["prompt"] == [1, 2, 3]
    assert body["logit_bias"] == {"8": 1.5, "7": -100.0}
    assert (body["max_tokens"], body["min_tokens"], body["seed"]) == (2, 2, 9)
    assert (body["temperature"], body["top_p"], body["top_k"]) == (1.0, 1.0, 0)
    assert not body["add_special_tokens"]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, UnsupportedError),
        (422, UnsupportedError),
        (401, EngineError),
        (404, EngineError),
        (429, EngineBusyError),
        (503, EngineBusyError),
        (500, EngineError),
    ],
)
async def test_a_status_is_someones_fault(
    engine: RemoteEngine, upstream: Scripted, status: int, error: type[Exception]
) -> None:
    said = {"error": {"message": "the reason", "param": "top_k", "code": status}}
    upstream.answers["/v1/completions"] = (status, said)
    with pytest.raises(error, match="the reason") as streamed:
        await whole(engine, [1], GREEDY, 4)
    assert type(streamed.value) is error
    with pytest.raises(error, match="the reason"):
        await engine.next_logprobs([1], 2)
    if isinstance(streamed.value, UnsupportedError):
        assert streamed.value.param == "top_k"
    assert engine.running == 0


async def test_an_error_inside_the_stream_is_one(engine: RemoteEngine, upstream: Scripted) -> None:
    broken = {"error": {"message": "core died", "code": 500}}
    upstream.answers["/v1/completions"] = (200, [chunk("a", [64]), broken])
    with pytest.raises(EngineError, match="core died"):
        await whole(engine, [1], GREEDY, 4)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([chunk("a", [64])], "without a reason"),
        ([chunk("a", [64], "abort")], "abort"),
        (["{not json"], "no JSON"),
    ],
)
async def test_a_broken_stream_is_an_error(
    engine: RemoteEngine, upstream: Scripted, answer: list[Any], words: str
) -> None:
    upstream.answers["/v1/completions"] = (200, answer)
    with pytest.raises(EngineError, match=words):
        await whole(engine, [1], GREEDY, 4)


async def test_leaving_closes_the_connection(engine: RemoteEngine, upstream: Scripted) -> None:
    upstream.answers["/v1/completions"] = (200, [chunk("a", [64])])
    upstream.hold = True
    deltas = engine.generate([1], GREEDY, 9)
    await anext(deltas)
    assert engine.running == 1
    await deltas.aclose()
    assert engine.running == 0
    assert await asyncio.to_thread(upstream.left.wait, 10.0)


async def test_stopping_ends_running_calls(engine: RemoteEngine, upstream: Scripted) -> None:
    upstream.answers["/v1/completions"] = (200, [chunk("a", [64])])
    upstream.hold = True
    task = asyncio.create_task(whole(engine, [1], GREEDY, 9))
    await until(lambda: engine.running == 1)
    await engine.stop()
    with pytest.raises(EngineDeadError):
        await asyncio.wait_for(task, 10.0)
    with pytest.raises(EngineDeadError):
        await engine.check()


@pytest.mark.parametrize("turns", range(12))
async def test_stopping_ends_calls_that_only_begin(
    engine: RemoteEngine, upstream: Scripted, turns: int
) -> None:
    upstream.answers["/v1/completions"] = (200, [chunk("a", [64])])
    upstream.hold = True
    task = asyncio.create_task(whole(engine, [1], GREEDY, 9))
    for _ in range(turns):
        await asyncio.sleep(0)
    await engine.stop()
    with pytest.raises(EngineDeadError):
        await asyncio.wait_for(task, 10.0)
    assert engine.running == 0


@pytest.mark.parametrize("turns", range(40))
async def test_leaving_at_any_moment_closes_the_connection(
    engine: RemoteEngine, upstream: Scripted, turns: int
) -> None:
    upstream.answers["/v1/completions"] = (200, [chunk("a", [64])])
    upstream.hold = True
    before = len(upstream.asked)
    task = asyncio.create_task(whole(engine, [1], GREEDY, 9))
    for _ in range(turns):
        await asyncio.sleep(0.0001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.running == 0
    if len(upstream.asked) > before:
        assert await asyncio.to_thread(upstream.left.wait, 10.0)


async def test_one_that_cannot_be_reached_is_lost(engine: RemoteEngine, upstream: Scripted) -> None:
    upstream.end()
    with pytest.raises(EngineDeadError, match="far"):
        await whole(engine, [1], GREEDY, 9)
    with pytest.raises(EngineDeadError, match="far"):
        await engine.next_logprobs([1], 2)


async def test_a_silent_upstream_times_out(upstream: Scripted, folder: str) -> None:
    engine = named(upstream, folder, engine_args={"timeout_s": 1.0})
    await engine.start()
    upstream.answers["/v1/completions"] = (200, [chunk("a", [64])])
    upstream.hold = True
    with pytest.raises(EngineError, match="far") as slow:
        await whole(engine, [1], GREEDY, 9)
    assert not isinstance(slow.value, EngineDeadError), "it is there and may only be slow"
    await engine.stop()


async def test_check_asks_the_upstream(engine: RemoteEngine, upstream: Scripted) -> None:
    await engine.check()
    upstream.answers["/health"] = (404, "")
    await engine.check()
    upstream.answers["/health"] = (503, "")
    with pytest.raises(EngineDeadError, match="503"):
        await engine.check()


async def test_nobody_there_is_an_error(upstream: Scripted, folder: str) -> None:
    engine = named(upstream, folder, url="http://127.0.0.1:9/v1")
    with pytest.raises(EngineError, match="far"):
        await engine.start()


async def test_the_key_is_sent(
    upstream: Scripted, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = named(upstream, folder, api_key_env="FAR_KEY")
    with pytest.raises(EngineError, match="FAR_KEY is not set"):
        await engine.start()
    monkeypatch.setenv("FAR_KEY", "open sesame")
    await engine.start()
    assert all(headers["authorization"] == "Bearer open sesame" for _, headers, _ in upstream.asked)
    await engine.stop()


@pytest.mark.parametrize(
    ("path", "answer", "words"),
    [
        ("/v1/models", {"data": [{"id": "other"}]}, "not 'm'"),
        ("/v1/models", {"data": [{"id": "m"}]}, "max_context"),
        ("/v1/completions", {"choices": [{"text": "a"}]}, "retokenize"),
        ("/tokenize", {"tokens": [1, 2, 3]}, "not the tokenizer"),
    ],
)
async def test_a_wrong_upstream_is_refused_at_the_start(
    upstream: Scripted, folder: str, path: str, answer: Any, words: str
) -> None:
    upstream.answers[path] = (200, answer)
    with pytest.raises(EngineError, match=words):
        await named(upstream, folder).start()


async def test_text_can_be_retokenized(upstream: Scripted, folder: str) -> None:
    engine = named(upstream, folder, retokenize=True)
    await engine.start()
    assert Capability.SCORE not in engine.capabilities
    events = [chunk("ab", None), chunk("c", None, "stop"), "[DONE]"]
    upstream.answers["/v1/completions"] = (200, events)
    greedy = Sampling(temperature=0)
    found = await whole(engine, [1], greedy, 9)
    eos = engine.tokenizer.eos_id
    assert found.tokens == [*engine.tokenizer.encode("abc"), eos]
    assert found.finish is Finish.STOP
    short = await whole(engine, [1], greedy, 2)
    assert (short.tokens, short.finish) == (found.tokens[:2], Finish.LENGTH)
    for change in ({"banned": (3,)}, {"top_k": 5}, {"ignore_eos": True}, {"logprobs": 1}):
        with pytest.raises(UnsupportedError):
            await whole(engine, [1], greedy.but(**change), 9)
    with pytest.raises(UnsupportedError):
        await engine.score([1], [2])
    assert "return_token_ids" not in upstream.asked[-1][2]
    await engine.stop()


@pytest.mark.parametrize("change", [{"typo": 1}, {"url": "file:///etc"}, {"engine_args": {"x": 1}}])
def test_a_faulty_configuration_is_refused(change: dict[str, Any], folder: str) -> None:
    good = {"kind": "remote", "url": "http://h", "model": "m", "tokenizer": folder}
    with pytest.raises(ValidationError):
        build("far", {**good, **change})

"""The terminal chat against a real server, with piped input."""

import asyncio
import io
import json

import pytest

from clients.chat import pairs, talk
from tests.server.api.live import Live


async def chat(
    live: Live, monkeypatch: pytest.MonkeyPatch, *lines: str, strategy: str | None = None
) -> int:
    """Runs the chat in a thread, as it blocks and the server lives in this loop."""
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    return await asyncio.to_thread(talk, live.url, "tab", strategy)


async def test_thinking_answer_and_usage_are_shown(
    live: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await chat(live, monkeypatch, "hello") == 0
    out = capsys.readouterr().out
    assert "let me see 3+4=7" in out
    assert "The answer is 7." in out
    assert "[stop]" in out
    assert "generated tokens" in out


async def test_events_come_as_the_strategy_works(
    live: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = ["/strategy parallel_thinking", "/params paths=3", "hello"]
    assert await chat(live, monkeypatch, *commands) == 0
    out = capsys.readouterr().out
    assert "· path:" in out
    assert out.index("· path:") < out.index("The answer is 7.")
    assert out.count("The answer is 7.") == 1
    assert "branches 3" in out


async def test_the_conversation_is_kept_until_new(
    live: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []
    complete = "openai.resources.chat.completions.Completions.create"
    import openai

    original = openai.resources.chat.completions.Completions.create

    def counted(self: object, **body: object) -> object:
        messages = body["messages"]
        assert isinstance(messages, list)
        asked.append(len(messages))
        return original(self, **body)  # type: ignore[call-overload]

    monkeypatch.setattr(complete, counted)
    await chat(live, monkeypatch, "hello", "hello", "/new", "hello")
    assert asked == [1, 3, 1]


async def test_a_fault_is_told_and_the_chat_goes_on(
    live: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["/params {bad", "/strategy nothing", "hello", "/strategy", "hello", "/quit", "hello"]
    assert await chat(live, monkeypatch, *lines) == 0
    out = capsys.readouterr().out
    assert "not parameters" in out
    assert "nothing" in out
    assert out.count("The answer is 7.") == 1


async def test_help_lists_the_commands(
    live: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await chat(live, monkeypatch, "/help")
    assert "/strategy [NAME]" in capsys.readouterr().out


def test_no_server_is_said_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert talk("http://127.0.0.1:9", None, None) == 1
    assert "satisfice serve" in capsys.readouterr().out


def test_parameters_as_words() -> None:
    words = ["paths=8", "early_stop=false", "phrase=Wait", 'path={"strategy":"plain"}']
    assert json.loads(json.dumps(dict(pairs(words)))) == {
        "paths": 8,
        "early_stop": False,
        "phrase": "Wait",
        "path": {"strategy": "plain"},
    }
    with pytest.raises(ValueError, match="NAME=VALUE"):
        dict(pairs(["paths"]))

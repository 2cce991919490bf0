"""`satisfice tune-prefix` on a real server whose distributions are known."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clients import tune_prefix
from clients.eval.core.asking import Asker
from clients.tune_prefix import Search, load
from engines.table import DOUBT
from monitors.core.registry import build
from tests.fakes.guard import WordGuard
from tests.server.api.live import Live, engine, running, settings

SCRIPT = {
    "attack": "<think>\nfine\n\nbad plan\n\nmore\n</think>\n\nDone.",
    "harmless": "<think>\nfine\n</think>\n\nDone.",
    # Half of these redone steps are bad again, and half are what stood there before.
    "safely": (" no.\n\n</think>\n\nNo.", " bad.\n\n</think>\n\nNo."),
    "rules": " no.\n\n</think>\n\nNo.",
    "Wait": " bad.\n\n</think>\n\nNo.",
}


@pytest.fixture
async def server() -> AsyncIterator[Live]:
    rules = {"kind": "rules", "rules": {"forbidden": {"words": ["bad"]}}}
    async with running(settings(), engine(script=SCRIPT), build("seven", rules)) as live:
        yield live


@pytest.fixture
def attacks(tmp_path: Path) -> Path:
    path = tmp_path / "attacks.jsonl"
    lines = [{"id": f"a{i}", "wrapper": f"w{i % 4}", "prompt": f"attack {i}"} for i in range(24)]
    lines += [{"prompt": f"harmless {i}"} for i in range(4)]
    lines.append({"prompt": "attack", "kind": "benign"})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


async def search(live: Live, tmp_path: Path, asked: Search) -> tuple[int, Path]:
    told = tmp_path / "out.json"
    return await asyncio.to_thread(tune_prefix.run, live.url, "tab", asked, told), told


async def test_phrases_are_judged_on_the_answers_that_are_steered(
    server: Live, attacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    phrases = ["Wait, think safely", "Remember the rules", "Wait"]
    monkeypatch.setattr(tune_prefix, "candidates", lambda file: phrases)
    status, told = await search(server, tmp_path, Search(prompts=attacks, max_tokens=80))
    out = capsys.readouterr().out
    assert status == 0, out
    written = json.loads(told.read_text())
    assert (written["claim"], written["models"]) == ("tune_prefix", ["tab"])
    rows = {(row["arm"], row["metric"]): row for row in written["rows"]}
    safe = {
        phrase: rows[f"safethink[phrase={phrase}]", "safety_satisfaction"] for phrase in phrases
    }
    assert {row["n"] for row in safe.values()} == {24}
    assert safe["Remember the rules"]["value"] == 1.0
    assert safe["Wait"]["value"] == 0.0
    assert 0.1 < safe["Wait, think safely"]["value"] < 0.9
    assert written["rows"][0]["arm"] == "safethink[phrase=Remember the rules]"
    assert 'params: {phrase: "Remember the rules"}' in out
    for row in written["rows"]:
        assert row["low"] <= row["value"] <= row["high"]
        assert row["n"] == 24


async def test_a_guard_that_fails_ends_the_search(
    attacks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the later phrases would be judged on fewer answers than the earlier ones."""
    guard = WordGuard("bad", fails=range(200, 100_000), name="seven")
    async with running(settings(), engine(script=SCRIPT), guard) as live:
        status, told = await search(live, tmp_path, Search(prompts=attacks, max_tokens=80))
    assert (status, told.exists()) == (1, False)
    assert "an answer was not judged" in capsys.readouterr().out


async def test_the_divergence_is_that_of_the_distributions(
    server: Live, attacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """` no.` and the end of its paragraph are certain behind the phrase; without, the first of
    them is not what the script says, and what comes then is the chain's."""
    monkeypatch.setattr(tune_prefix, "candidates", lambda file: ["Remember the rules"])
    _, told = await search(server, tmp_path, Search(prompts=attacks, n=8))
    (kl,) = [r for r in json.loads(told.read_text())["rows"] if r["metric"] == "kl_per_token"]
    asker = Asker(server.url, "tab", 0)
    prompt = await asker.encode("attack 0")
    step = server.engine.tokenizer.encode(" no.\n\n", special=False)
    phrase = server.engine.tokenizer.encode("Remember the rules", special=False)
    think = server.engine.tokenizer.encode("<think>\nfine\n\n", special=False)
    behind = await asker.logprob([*prompt, *think, *phrase, *step], len(step))
    without = await asker.logprob([*prompt, *think, *step], len(step))
    await asker.close()
    assert behind == pytest.approx(0.0, abs=1e-6)
    assert without < math.log(DOUBT)
    assert kl["value"] == pytest.approx((behind - without) / len(step))


async def test_nothing_steered_is_said(
    server: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "harmless"}\n')
    status, _ = await search(server, tmp_path, Search(prompts=path))
    assert status == 1
    assert "nothing was steered" in capsys.readouterr().out


async def test_what_the_server_refuses_is_told(
    server: Live, attacks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _ = await search(server, tmp_path, Search("nobody", prompts=attacks))
    assert status == 1
    assert "nobody" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"text": "x"}\n', "line 1 has no prompt"),
        ('{"prompt": "x", "kind": "benign"}\n', "no attacks"),
    ],
)
def test_attacks_of_another_form(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=fault):
        load(path, 5)


def test_the_stored_attacks() -> None:
    assert len(load(tune_prefix.PROMPTS, 500)) == 500

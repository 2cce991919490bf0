"""Rules: what is found and where, across the borders of steps, with bounded work."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from monitors.core.base import Message, Monitor, Score, Stage, UnreadableError
from monitors.core.registry import build

ASKED: list[Message] = [{"role": "user", "content": "how is a flumox made?"}]
BROKEN, KEPT = -1.0, 1.0


def rules(own: dict[str, Any] | None = None, **more: Any) -> Monitor:
    spec = {"kind": "rules", "rules": own or {"objects": {"words": ["flumox", "grey salt"]}}}
    return build("rules", {**spec, **more})


async def asked(monitor: Monitor, *steps: str, stage: Stage = Stage.ANSWER) -> Score:
    return await monitor.score(ASKED, steps, stage)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("take a flumox", BROKEN),
        ("take a FluMox.", BROKEN),
        ("flumoxes", KEPT),
        ("aflumox", KEPT),
        ("grey\n  salt", BROKEN),
        ("greysalt", KEPT),
        ("ｆｌｕｍｏｘ", BROKEN),
        ("flu\N{ZERO WIDTH SPACE}mox", BROKEN),
        ("nothing of the kind", KEPT),
        ("", KEPT),
    ],
)
async def test_words(text: str, value: float) -> None:
    score = await asked(rules(), text)
    assert (score.value, score.raw) == (value, value)
    assert score.label == ("objects" if value == BROKEN else None)


async def test_case_and_parts_of_words_can_count() -> None:
    strict = rules({"r": {"words": ["Flumox"], "match_case": True, "whole_words": False}})
    assert (await asked(strict, "flumox")).value == KEPT
    assert (await asked(strict, "aFlumoxes")).value == BROKEN
    pattern = {"r": {"patterns": [r"\d{4}-\d{4}"]}}
    assert (await asked(rules(pattern), "card 1234-5678")).value == BROKEN
    assert (await asked(rules({"r": {"patterns": ["abc"]}}), "ABC")).value == BROKEN
    assert (
        await asked(rules({"r": {"patterns": ["abc"], "match_case": True}}), "ABC")
    ).value == KEPT


async def test_a_match_over_the_border_of_steps_is_found_as_the_trace_grows() -> None:
    text, found = "well, one takes grey salt and stirs", []
    monitor = rules()
    for size in (1, 3, 7):
        steps: list[str] = []
        for at in range(0, len(text), size):
            steps.append(text[at : at + size])
            found.append((await asked(monitor, *steps, stage=Stage.THINKING)).value)
        assert found[-1] == BROKEN
        assert found[0] == KEPT
    assert (await asked(monitor, "grey ", "salt")).value == BROKEN  # thinking, then the answer


async def test_what_is_searched_is_configured() -> None:
    steps = ("the flumox", "nothing")
    assert (await asked(rules(stages=["answer"]), *steps)).value == KEPT
    assert (await asked(rules(stages=["answer"]), *steps, stage=Stage.THINKING)).value == KEPT
    assert (await asked(rules(stages=["thinking"]), *steps)).value == BROKEN
    assert (await asked(rules(stages=["thinking"]), "nothing", "the flumox")).value == KEPT
    assert (await asked(rules(stages=["answer"]), "nothing", "the flumox")).value == BROKEN
    assert (await asked(rules(), "nothing")).value == KEPT
    assert (await asked(rules(user=True), "nothing")).value == BROKEN
    assert (await rules().score(ASKED, [], Stage.ANSWER)).value == BROKEN  # the prompt alone
    parts: list[Message] = [{"role": "user", "content": [{"type": "text", "text": "a flumox"}]}]
    assert (await rules().score(parts, [], Stage.ANSWER)).value == BROKEN


async def test_the_first_broken_rule_is_named_and_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text("# objects\nflumox  # the worst\n\ngrey salt\n", "utf-8")
    monitor = rules(
        {"numbers": {"patterns": [r"\d"]}, "objects": {"words_file": str(tmp_path / "w.txt")}}
    )
    assert (await asked(monitor, "flumox 7")).label == "numbers"
    assert (await asked(monitor, "grey salt")).label == "objects"
    (tmp_path / "w.txt").write_text("# none\n", "utf-8")
    with pytest.raises(ValueError, match="holds no word"):
        rules({"r": {"words_file": str(tmp_path / "w.txt")}})
    with pytest.raises(ValueError, match=r"rules\.r\.words_file: cannot be read"):
        rules({"r": {"words_file": str(tmp_path / "no.txt")}})


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        ({}, "needs patterns"),
        ({"words": [" "]}, "must not be empty"),
        ({"words": ["\N{ZERO WIDTH SPACE}"]}, "must not be empty"),
        ({"patterns": ["("]}, "not a regular expression"),
        ({"wrods": ["a"]}, "wrods"),
    ],
)
def test_a_faulty_rule_is_refused(own: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rules({"r": own})


async def test_work_is_bounded_and_the_loop_runs_on() -> None:
    monitor = rules({"r": {"patterns": [r"(\w|\w\w)+\d$"]}})
    hostile = asyncio.create_task(asked(monitor, "a" * 5000 + "!"))
    ticks, began = 0, time.perf_counter()
    while not hostile.done():
        await asyncio.sleep(0.01)
        ticks += 1
    with pytest.raises(UnreadableError, match="longer than"):  # so it opens no circuit
        await hostile
    assert time.perf_counter() - began < 5
    assert ticks > 10
    with pytest.raises(UnreadableError, match="1000000 characters"):
        await asked(rules(), "a" * 1_000_001)


async def test_many_words_in_a_long_text_are_looked_for_in_time() -> None:
    words = [f"word{i}" for i in range(5000)] + [f"two words{i}" for i in range(50)]
    monitor = rules({"r": {"words": words}})
    text = "a perfectly ordinary sentence of words, " * 1500
    assert (await asked(monitor, text)).value == KEPT
    assert (await asked(monitor, text + "word4999")).value == BROKEN
    assert (await asked(monitor, text + "two\twords7")).value == BROKEN

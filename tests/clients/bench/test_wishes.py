"""What the command line can ask for: arms, loads, prompts."""

from pathlib import Path

import pytest

from clients.bench import arm, load, prompts
from clients.bench.load import Load
from clients.bench.sweep import Sweep, Target

TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""


def test_an_arm_is_a_strategy_with_parameters() -> None:
    assert arm.read("plain").decoding == {"strategy": "plain", "params": {}}
    many = arm.read('best_of_n:samples=4,monitor={"kind": "exact", "answer": "1,2"}')
    assert many.decoding["params"] == {
        "samples": 4,
        "monitor": {"kind": "exact", "answer": "1,2"},
    }
    assert arm.read("vote=>parallel_thinking:paths=8,tie=random").name == "vote"
    assert arm.read("parallel_thinking:paths=8").name == "parallel_thinking[paths=8]"
    assert arm.read('{"strategy": "hex", "trace": "none"}').name == "hex"
    assert arm.read("vllm=>none").decoding == {}
    with pytest.raises(ValueError, match="NAME=VALUE"):
        arm.read("plain:paths")


def test_loads_have_kinds_and_levels() -> None:
    loads = [*load.closed("1,8"), *load.opened("0.5")]
    assert [(one.name, one.kind, one.level) for one in loads] == [
        ("x1", "closed", 1),
        ("x8", "closed", 8),
        ("0.5/s", "open", 0.5),
    ]
    for text, read in (("0", load.closed), ("-1", load.opened)):
        with pytest.raises(ValueError, match="each must be"):
            read(text)


def test_recorded_arrivals_keep_their_times(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    found = load.recorded(path, 3, speed=2)
    assert [one.at for one in found] == pytest.approx([0, 2.15729, 2.27094], abs=1e-4)
    assert [(one.context, one.generated) for one in found] == [(374, 44), (396, 109), (879, 55)]
    assert load.replay("trace", found).level == pytest.approx(2 / 2.27094, rel=1e-3)
    with pytest.raises(ValueError, match="4 were asked for"):
        load.recorded(path, 4)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no trace"):
        load.recorded(path, 1)


def test_prompts_of_known_forms(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(
        '{"question": "How many?", "answer": "3 * 4 = 12\\n#### 1,212"}\n'
        '{"uid": "u", "prompt": "Write.", "answer": "a poem"}\n'
        '{"question_id": 81, "turns": ["Compose.", "Again."], "category": "writing"}\n'
    )
    first, second, third, again = prompts.load(path, 4)
    assert (first.answer, second.answer, third.answer) == ("1,212", None, None)
    assert first.is_right("That makes 1212.")
    assert not first.is_right("12")
    assert second.is_right("x") is None
    assert (third.id, third.text, third.group) == ("81", "Compose.", "writing")
    assert again == first
    (tmp_path / "some.txt").write_text("one\n\ntwo\n")
    assert [one.text for one in prompts.load(tmp_path / "some.txt", 2)] == ["one", "two"]
    path.write_text('{"x": 1}\n')
    with pytest.raises(ValueError, match="line 1"):
        prompts.load(path, 1)


def test_arms_are_asked_the_same_with_the_same_seeds() -> None:
    asked = prompts.load(prompts.DEFAULT, 3)
    arms = [arm.read("plain"), arm.read("parallel_thinking:paths=4")]
    sweep = Sweep(arms, [Load("x1", concurrent=1)], asked, rounds=2)
    order = [(turn, one.name) for turn, one, _ in sweep.points()]
    assert order == [(0, arms[0].name), (0, arms[1].name), (1, arms[1].name), (1, arms[0].name)]
    target = Target("http://x", "m")
    seeds = {sweep.body(target, one, asked[0], 0)["seed"] for one in arms}
    assert len(seeds) == 1
    assert seeds != {sweep.body(target, arms[0], asked[0], 1)["seed"]}
    assert "decoding" not in sweep.body(target, arm.read("none"), asked[0], 0)

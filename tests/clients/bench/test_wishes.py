"""What the command line can ask for: arms, loads, prompts."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from clients.bench import arm, command, load, prompts
from clients.bench.command import Asked, wishes
from clients.bench.driver import Driver
from clients.bench.figures import Point
from clients.bench.load import Load
from clients.bench.sweep import Round, Sweep, Target

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
    row = "2023-11-16 18:15:50,9,9"
    broken = {
        "line 2": "a,b\n1,2\n",
        "line 3": TRACE.replace(",109", ""),
        "line 7": TRACE + "\n\n2023-11-16 18:1",
        "line 4": TRACE + f'{row},"{"9" * 200_000}"\n',
    }
    for line, text in broken.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=f"trace.csv, {line}: no arrival of a trace"):
            load.recorded(path, 4)


def test_traces_of_either_year_are_read(tmp_path: Path) -> None:
    """Those of 2024 have a zone and sometimes no fraction, and not all are in order."""
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:01+00:00,2,3\n"
        "2024-05-10 00:00:00.009930+00:00,1,2\n2024-05-10 00:00:01.5+00:00,3,4\n"
    )
    found = load.recorded(path, 3)
    assert [one.at for one in found] == pytest.approx([0, 0.99007, 1.49007])
    assert [one.context for one in found] == [1, 2, 3]


def test_a_trace_without_a_zone_knows_no_summer_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-10-29 02:59:59.0000000,1,2\n2023-10-29 03:00:01.0000000,1,2\n"
    )
    with monkeypatch.context() as here:
        here.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        found = load.recorded(path, 2)
    time.tzset()
    assert [one.at for one in found] == [0, 2]


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
    # An end of a line to Unicode, none to JSON Lines.
    path.write_text('{"prompt": "a\u2028b"}\r\n{"prompt": "c"}\r\n')
    assert [one.text for one in prompts.load(path, 2)] == ["a\u2028b", "c"]
    path.write_text('{"x": 1}\n')
    with pytest.raises(ValueError, match="line 1"):
        prompts.load(path, 1)


def test_prompts_are_drawn_from_the_whole_file() -> None:
    known = [one.text for one in prompts.load(prompts.DEFAULT, 1200)]
    drawn = [prompts.load(prompts.DEFAULT, 40, seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    places = [known.index(one.text) for one in drawn[0]]
    assert len(set(places)) == 40
    assert min(places) < 300 < 900 < max(places)


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


def jobs_of(sweep: Sweep, one: Load, turn: int = 0) -> list[Mapping[str, Any]]:
    """What a driver is told in one round."""
    jobs: list[Mapping[str, Any]] = []

    class Noted(Driver):
        def run(self, job: Mapping[str, Any], heard: object) -> dict[str, float]:
            jobs.append(job)
            return {"late_s": 0.0}

    nobody = Noted(Popen(["true"], stdin=PIPE, stdout=PIPE, text=True))
    asked = Round(sweep, Target("http://x", "m"), nobody, Point(sweep.arms[0], one), turn)
    asked.warm(lambda *_: None)
    asked.measure([], lambda *_: None)
    return jobs


def sent(sweep: Sweep, one: Load, turn: int = 0) -> tuple[list[str], list[str]]:
    """Texts with seeds of what warms up and of what is measured."""
    bodies = [[asked["body"] for asked in job["requests"]] for job in jobs_of(sweep, one, turn)]
    told = [[f"{b['messages'][0]['content']} {b['seed']}" for b in job] for job in bodies]
    return (told[0] if len(told) == 2 else []), told[-1]


def test_what_warms_up_is_never_measured() -> None:
    asked = [prompts.Prompt(str(i % 3), f"p{i % 3}") for i in range(5)]
    loads = [Load("x1", concurrent=1), Load("x4", concurrent=4)]
    arms = [arm.read("plain")]
    warm, _ = sent(Sweep(arms, loads, asked, [prompts.Prompt("o", "other")]), loads[1])
    assert [text.split()[0] for text in warm] == ["other"] * 4
    # A file that ends soon after what is measured begins again.
    ended = [prompts.Prompt("o", "other"), *asked[:3]]
    warm, _ = sent(Sweep(arms, loads, asked, ended), loads[1])
    assert [text.split()[0] for text in warm] == ["other"] * 4
    alone = Sweep(arms, loads, asked)
    rounds = [(one, turn) for one in loads for turn in (0, 1)]
    seen = [text for one, turn in rounds for job in sent(alone, one, turn) for text in job]
    # Neither a load, nor a round, nor a prompt that a short file repeats asks the same again.
    assert len(set(seen)) == len(seen) == 2 * (2 + 5) + 2 * (4 + 5)
    assert sent(replace(alone, warmup=0), loads[1])[0] == []


def test_a_replay_is_warmed_up_by_a_closed_loop() -> None:
    asked = [prompts.Prompt(str(i), f"p{i}") for i in range(5)]
    others = [prompts.Prompt("o", "other")]
    timed = load.replay("t", [load.Arrival(i, 1, 1) for i in range(5)])
    warm, measured = jobs_of(Sweep([arm.read("plain")], [timed], asked, others, 3), timed)
    assert (warm["concurrent"], "timed" in warm) == (4, False)
    texts = [one["body"]["messages"][0]["content"] for one in warm["requests"]]
    assert texts == ["other"] * 3
    assert {one["at"] for one in warm["requests"]} == {None}
    assert (measured["timed"], "concurrent" in measured) == (True, False)
    assert [one["at"] for one in measured["requests"]] == [0, 1, 2, 3, 4]


def test_two_of_one_name_cannot_be_told_apart() -> None:
    same = [arm.read(f'{{"strategy": "hex", "params": {{"seeds": {n}}}}}') for n in (1, 2)]
    with pytest.raises(ValueError, match="LABEL"):
        Sweep(same, load.closed("1"), [])
    with pytest.raises(ValueError, match="x1"):
        Sweep(same[:1], load.closed("1,2,1"), [])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"concurrency": "2,x"}, "--concurrency"),
        ({"rate": "fast"}, "--rate"),
        ({"rate": "1", "burstiness": 0.0}, "--burstiness"),
        ({"replay": "trace.csv", "speed": 0.0}, "--speed"),
        ({"speed": -1.0}, "--speed"),
        ({"replay": "trace.csv", "token_scale": float("inf")}, "--token-scale"),
        ({"replay": "none.csv"}, "--replay"),
        ({"replay": "trace.csv", "n": 4}, "--replay"),
        ({"prompts": "none.jsonl"}, "--prompts"),
        ({"prompts": "."}, "--prompts"),
        ({"prompts": "latin.jsonl"}, "--prompts"),
        ({"body": "{x"}, "--body"),
        ({"body": "[1]"}, "--body"),
        ({"goal": "e2e=soon"}, "--goal"),
        ({"strategies": ['{"strategy']}, "--strategy"),
        ({"synthetic": "5"}, "--synthetic"),
        ({"synthetic": "5:0"}, "--synthetic"),
        ({"strategies": ["plain", "plain"]}, "--strategy LABEL=>"),
        ({"concurrency": "1,1"}, "--concurrency"),
        ({"json_file": "none/x.json"}, "--json"),
        ({"json_file": "trace.csv/x.json"}, "--json"),
        ({"html": "."}, "--html"),
    ],
)
def test_wrong_wishes_are_named_before_anything_starts(
    fields: dict[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "serving", lambda *_: pytest.fail("a server was started"))
    (tmp_path / "trace.csv").write_text(TRACE)
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}\n')
    paths = ("replay", "prompts", "json_file", "html")
    given = {k: tmp_path / v if k in paths else v for k, v in fields.items()}
    out, html = given.pop("json_file", None), given.pop("html", None)
    assert command.run(Asked(**{"n": 3, **given}), None, out, html) == 1
    told = capsys.readouterr().out
    assert told.startswith("bench: ")
    assert said in told


def test_lengths_are_asked_for_by_hand_or_recorded(tmp_path: Path) -> None:
    made = wishes(Asked(synthetic="60:5", n=2, warmup=1))
    assert (made.prompts, made.lengths) == ([], [(60, 5)] * 3)
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    again = wishes(Asked(replay=path, n=3, warmup=1, token_scale=0.01))
    assert again.lengths == [(4, 1), (4, 1), (9, 1), (4, 1)]


def test_a_recorded_length_is_generated_not_only_allowed(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(TRACE)
    assert wishes(Asked(replay=path, n=3)).sampling == {"ignore_eos": True}
    told = wishes(Asked(replay=path, n=3, body='{"ignore_eos": false}'))
    assert told.sampling == {"ignore_eos": False}
    # Prompts that are known end where they end, and a made-up length is a cap.
    assert wishes(Asked(replay=path, n=3, prompts=prompts.DEFAULT)).sampling == {}
    assert wishes(Asked(replay=path, n=3, synthetic="9:9")).sampling == {}


@pytest.mark.parametrize("line", ["5", "{", '{"turns": 5}', '{"turns": []}', '{"prompt": 3}'])
def test_lines_that_are_no_prompts_are_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(f'{{"prompt": "a"}}\n\n{line}\n')
    with pytest.raises(ValueError, match="line 3"):
        prompts.load(path, 2)


def test_what_can_be_written_is_not_refused(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text("{}")
    for path in (None, old, tmp_path / "new.json"):
        command.check_writable("--json", path)
    assert not (tmp_path / "new.json").exists()


def test_an_arm_without_decoding_sends_none() -> None:
    asked = prompts.load(prompts.DEFAULT, 3)
    sweep = Sweep([arm.read("none")], [Load("x1", concurrent=1)], asked)
    target = Target("http://x", "m")
    assert "decoding" not in sweep.body(target, arm.read("none"), asked[0], 0)

"""SafeThink: equal to a slow loop of its pseudocode, whatever the timing of guard and engine."""

import asyncio
import itertools
from contextlib import aclosing
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from decoders.core.answer import answer
from decoders.core.base import Budget, DecodeRequest, RequestError, TraceLevel
from decoders.core.ledger import Ledger
from decoders.core.registry import find
from decoders.core.run import checked, estimate
from decoders.core.seeds import derive
from decoders.core.steps import Cutter, Rules, Step
from decoders.core.think import is_thinking
from engines.base import Delta, Engine, Sampling
from engines.table import TableEngine
from monitors.core.base import Monitor, Stage
from monitors.core.registry import build
from tests.fakes.guard import WordGuard
from tests.fakes.requests import Jittered, Whole, request, table, whole

PLAN = "<think>\nfine\n\nfine too\n\nbad plan\n\nmore\n</think>\n\nThe end."
PHRASE = "Wait, think safely"
SAFE = ": no.\n\nI stop.\n</think>\n\nNo."


def jittered(jitter: int = 0, **spec: Any) -> TableEngine:
    engine = Jittered.__new__(Jittered)
    engine.__dict__.update(table(**spec).__dict__)
    engine.jitter = jitter
    return engine


def asked(engine: Engine, guard: Monitor, prompt: str = "hello", **params: Any) -> DecodeRequest:
    fields = {k: params.pop(k) for k in list(params) if k in DecodeRequest.__dataclass_fields__}
    fields = {"max_tokens": 200, "trace": TraceLevel.FULL, **fields}
    return request(engine, "safethink", params, prompt=prompt, monitors={"g": guard}, **fields)


async def run_on(engine: TableEngine, one: DecodeRequest) -> Whole:
    await engine.start()
    result = await whole(one)
    assert engine.running == 0
    return result


def nodes(result: Whole, kind: str) -> list[dict[str, Any]]:
    assert result.summary.trace is not None
    return [node for node in result.summary.trace["nodes"] if node["kind"] == kind]


async def slow(one: DecodeRequest, guard: WordGuard) -> list[int]:
    """The pseudocode, one thing after the other: the tokens that stand."""
    o: Any = one.options
    z: list[int] = []
    answer, last = "", None
    index = 0
    while True:
        violated = None
        for step in await continued(one, z, z, ("main",) if not z else ("main", len(z))):
            last_said = last if step.blank else read(answer, step)
            judged = last_said is not None and (o.check_answer or step.stage is Stage.THINKING)
            if judged and await unsafe(guard, last_said or ""):
                gate = step.closing and o.check_before_answer
                final = step.stage is Stage.ANSWER and o.check_answer
                if index < o.max_steered_steps or (o.max_steered_steps and (gate or final)):
                    violated = step
                    break
                if final:
                    return z
            z += step.tokens
            answer, last = heard(answer, last, step)
            index += not step.blank
            if step.finish is not None:
                return z
        assert violated is not None
        spaces = blanks(one, violated)
        answer, last = heard(answer, last, replace(violated, tokens=spaces, text=""))
        z += spaces
        phrase = one.engine.tokenizer.encode(spaced(one, z), special=False)
        tries = []
        for b in range(o.max_resamples):
            steps = await continued(one, [*z, *phrase], z, ("steer", len(z), b))
            tries.append(steps[0])
            if not await unsafe(guard, read(answer, steps[0])):
                break
        else:
            if violated.stage is Stage.ANSWER and o.check_answer:
                return z
        kept = o.keep_phrase and violated.stage is Stage.THINKING
        z += phrase if kept else []
        best = (
            tries[-1]
            if o.on_exhaust == "last" or not await unsafe(guard, read(answer, tries[-1]))
            else tries[0]
        )
        z += best.tokens
        answer, last = heard(answer, last, best)
        index += not best.blank
        if best.finish is not None:
            return z


def blanks(one: DecodeRequest, step: Step) -> tuple[int, ...]:
    """The white space that an unsafe step begins with: it stands, only the words are redone."""
    if step.blank:
        return ()
    shown = itertools.takewhile(lambda t: one.engine.tokenizer.decode([t]).isspace(), step.tokens)
    return tuple(shown)


def spaced(one: DecodeRequest, z: list[int]) -> str:
    before = one.engine.tokenizer.decode(z[-1:], skip_special=False)
    return ("" if not before or before[-1].isspace() else " ") + "Wait, think safely"


def read(answer: str, step: Step) -> str:
    """What the guard judges by: a step of the thinking, or the whole answer so far."""
    return step.text if step.stage is Stage.THINKING else answer + step.text


def heard(answer: str, last: str | None, step: Step) -> tuple[str, str | None]:
    """The answer so far and what was judged last, once the step stands."""
    said = last if step.blank else read(answer, step)
    return answer + (step.text if step.stage is Stage.ANSWER else ""), said


async def unsafe(guard: WordGuard, said: str) -> bool:
    return (await guard.score([], [said], Stage.THINKING)).value < 0


async def continued(
    one: DecodeRequest, after: list[int], inside: list[int], purpose: tuple[Any, ...]
) -> list[Step]:
    """All steps of one engine request, read to its end."""
    o: Any = one.options
    seed = derive(one.seed, 0, *purpose)
    limit = one.max_tokens - len(after)
    thinking = is_thinking(one.think, one.think_open, inside)
    rules = Rules(frozenset(o.boundaries), o.max_step_tokens)
    think = one.think if thinking or not inside else None
    cutter = Cutter(one.engine.tokenizer, think, thinking, rules)
    if limit < 1:
        return list(cutter.feed(Delta((), finish="length")))  # type: ignore[arg-type]
    found: list[Step] = []
    prefix = (*one.prompt, *after)
    async for delta in one.engine.generate(prefix, one.sampling.but(seed=seed), limit):
        found += cutter.feed(delta)
    return found


TWO = {"max_steered_steps": 2}
BABBLE: dict[str, Any] = {
    "boundaries": ["line", "paragraph"],
    "max_step_tokens": 9,
    "prompt": "babble",
}


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("steered", [0, 1, 3, 100])
@pytest.mark.parametrize("last", ["last", "best"])
async def test_every_timing_gives_what_the_slow_loop_gives(
    keep: bool, steered: int, last: str
) -> None:
    """Random text, random violations: some steps redone, some attempts exhausted."""
    redone = 0
    for seed in range(12):
        answers = set()
        for optimistic, delay, jitter in [(False, 0, 0), (True, 0, 1), (True, 0.0004, 2)]:
            engine, guard = jittered(jitter, script={}), WordGuard("o", "mb", delay=delay)
            one = asked(
                engine, guard, seed=seed, max_tokens=90, sampling=Sampling(logprobs=0),
                keep_phrase=keep, max_steered_steps=steered, on_exhaust=last, max_resamples=2,
                optimistic=optimistic, check_answer=bool(seed % 2),
                    think_open=bool(seed % 3), **BABBLE,
            )  # fmt: skip
            result = await run_on(engine, one)
            redone += len(nodes(result, "rejected"))
            answers.add(tuple(token for token, _ in result.logprobs))
            assert tuple(await slow(one, WordGuard("o", "mb")))[:90] in answers
        assert len(answers) == 1
    assert bool(redone) is bool(steered)


@pytest.mark.parametrize("optimistic", [True, False])
@pytest.mark.parametrize("delay", [0.0, 0.003])
async def test_a_violation_is_redone_behind_the_phrase(optimistic: bool, delay: float) -> None:
    engine, guard = table(script={"hello": PLAN, "safely": SAFE}), WordGuard("bad", delay=delay)
    result = await run_on(engine, asked(engine, guard, optimistic=optimistic))
    assert result.reasoning == "fine\n\nfine too\n\nWait, think safely: no.\n\nI stop.\n"
    assert result.content == "No."
    fields = result.summary.as_dict()
    assert (fields["interventions"], fields["steered_steps"], fields["steps"]) == (1, 1, 5)
    assert fields["lowest_score"] == -1.0
    (rejected,) = nodes(result, "rejected")
    assert rejected["index"] == 3
    # What each verdict cost: the guard reads all that stands before, too.
    assert [node["monitor_tokens"] for node in nodes(result, "step")[:2]] == [7, 17]
    assert (rejected["monitor_tokens"], rejected["length"]) == (27, 10)
    spans = [(n["stage"], n["start"], n["end"]) for n in nodes(result, "step")]
    whole_text = {"thinking": result.reasoning, "answer": result.content}
    assert [whole_text[stage][a:b].strip() for stage, a, b in spans] == [
        "fine", "fine too", ": no.", "I stop.", "No.",
    ]  # fmt: skip
    assert guard.seen[2] == (["\nfine\n\n", "fine too\n\n", "bad plan\n\n"], Stage.THINKING)
    assert guard.seen[-1][0][-1].strip() == "No."


@pytest.mark.parametrize(
    ("params", "reasoning"),
    [
        ({"keep_phrase": False}, ": no.\n\nmore\n"),
        ({"max_steered_steps": 2, "check_before_answer": False}, "bad plan\n\nmore\n"),
        (TWO | {"late": "steer"}, "Wait, think safely: no.\n\nI stop.\n"),
        (TWO | {"late": "refuse"}, ""),
        ({"phrase": "Stop!"}, "Stop! ok\n"),
    ],
)  # fmt: skip
async def test_options(params: dict[str, Any], reasoning: str) -> None:
    script = {
        "hello": PLAN,
        "safely": SAFE,
        ": no.\n\n": "more\n</think>\n\nNo.",
        "!": " ok\n</think>\n\nY",
    }
    if params.get("keep_phrase", True):
        del script[": no.\n\n"]
    engine = table(script=script)
    result = await run_on(engine, asked(engine, WordGuard("bad"), **params))
    assert result.reasoning == "fine\n\nfine too\n\n" + reasoning
    refused = params.get("late") == "refuse"
    assert (result.finish, result.last.refusal is not None) == (
        ("content_filter", True) if refused else ("stop", False)
    )


async def test_the_first_safe_attempt_in_order_wins() -> None:
    options = tuple(f" {word}\n</think>\n\nNo." for word in ("bad a", "bad b", "ok c", "ok d"))
    places = set()
    for seed in range(8):
        engine = table(script={"hello": PLAN, "safely": options})
        result = await run_on(engine, asked(engine, WordGuard("bad"), seed=seed, max_resamples=8))
        verdicts = [node["safe"] for node in nodes(result, "resample")]
        assert verdicts == [False] * (len(verdicts) - 1) + [True]
        places.add(len(verdicts))
    assert len(places) > 2


async def test_attempts_differ() -> None:
    engine = table(script={"hello": PLAN})
    one = asked(engine, WordGuard("bad", "safely"), max_resamples=8, max_step_tokens=20)
    tried = nodes(await run_on(engine, one), "resample")
    assert len({tuple(node["tokens"]) for node in tried if node["step"] == 3}) == 8


@pytest.mark.parametrize(("phrase", "tried"), [("safely", 1), (["safely", "Stop"], 2)])
async def test_greedy_attempts_are_not_repeated(phrase: str | list[str], tried: int) -> None:
    engine = table(script={"hello": PLAN})
    one = asked(engine, WordGuard("bad", "safely"), phrase=phrase, max_step_tokens=20)
    greedy = replace(one, sampling=replace(one.sampling, temperature=0.0))
    found = nodes(await run_on(engine, greedy), "resample")
    assert len([node for node in found if node["step"] == 3]) == tried


@pytest.mark.parametrize(("counted", "steered"), [("steps", 1), ("interventions", 2)])
async def test_what_the_limit_counts(counted: str, steered: int) -> None:
    """After a safe step every attempt is safe, and what follows it is not; two may be redone."""
    said = "<think>\nfine\n\nbad a\n\n"
    engine = table(script={"hello": said, "safely": ": no.\n\nbad b\n\nok\n</think>\n\nEnd."})
    one = asked(engine, WordGuard("bad"), counted=counted, max_steered_steps=2)
    result = await run_on(engine, one)
    assert result.summary.as_dict()["steered_steps"] == steered


async def test_attempts_may_have_a_temperature_of_their_own() -> None:
    """A greedy answer whose attempts are drawn gets all of them, and they differ."""
    engine = table(script={"hello": PLAN})
    guard = WordGuard("bad", "safely")
    one = asked(engine, guard, resample_temperature=1.0, max_step_tokens=20, max_resamples=3)
    greedy = replace(one, sampling=replace(one.sampling, temperature=0.0))
    tried = [n for n in nodes(await run_on(engine, greedy), "resample") if n["step"] == 3]
    assert len({tuple(node["tokens"]) for node in tried}) == 3


async def test_the_phrase_follows_the_line_break_that_an_unsafe_step_began_with() -> None:
    engine = table(script={"hello": "<think>\nbad\n</think>\n\nx", "safely": SAFE})
    result = await run_on(engine, asked(engine, WordGuard("bad")))
    (rejected,) = nodes(result, "rejected")
    (forced,) = nodes(result, "forced")
    assert engine.tokenizer.decode(rejected["tokens"]).startswith("bad")
    assert engine.tokenizer.decode(forced["tokens"]) == "Wait, think safely"
    assert result.reasoning.startswith("Wait, think safely: no.")


@pytest.mark.parametrize("how", ["best", "last", "refuse"])
async def test_when_no_attempt_is_safe(how: str) -> None:
    engine = table(script={"hello": PLAN, "safely": " bad again\n</think>\n\nNo."})
    result = await run_on(engine, asked(engine, WordGuard("bad"), on_exhaust=how, max_resamples=3))
    assert len(nodes(result, "resample")) == 3
    if how == "refuse":
        assert result.finish == "content_filter"
        assert "bad" not in result.reasoning
        assert result.summary.as_dict()["outcome"] == "refused"
    else:
        assert "Wait, think safely bad again" in result.reasoning
        assert result.content == "No."


@pytest.mark.parametrize(
    ("params", "steered", "resamples"),
    [
        ({"on_exhaust": "refuse", "max_resamples": 3}, 1, 3),
        ({"late": "refuse", "max_steered_steps": 0}, 0, 0),
    ],
)
async def test_a_refusal_says_what_it_came_from(
    params: dict[str, Any], steered: int, resamples: int
) -> None:
    engine = table(script={"hello": "<think>\nbad\n</think>\n\nx", "safely": " bad"})
    result = await run_on(engine, asked(engine, WordGuard("bad"), **params))
    fields = result.summary.as_dict()
    said = [fields.get(name) for name in ("steps", "steered_steps", "resamples", "lowest_score")]
    assert said == [0, steered, resamples, -1.0]
    assert [node["score"] for node in nodes(result, "rejected")] == [-1.0]


@pytest.mark.parametrize("check_answer", [True, False])
async def test_an_unsafe_answer_never_leaves(check_answer: bool) -> None:
    said = "<think>\nfine\n</think>\n\nHow bad."
    engine = table(script={"hello": said, "safely": " so bad"})
    result = await run_on(engine, asked(engine, WordGuard("bad"), check_answer=check_answer))
    assert result.reasoning == "fine\n"
    assert result.content == ("" if check_answer else "How bad.")
    assert result.finish == ("content_filter" if check_answer else "stop")


async def test_a_word_cannot_hide_behind_the_end_of_the_thinking() -> None:
    """Where the model puts no white space around the marker, two words must not be read as one."""
    engine = table(script={"hello": "<think>plan</think>flumox for all"})
    guard = build("rules", {"kind": "rules", "rules": {"r": {"words": ["flumox"]}}})
    result = await run_on(engine, asked(engine, guard, max_steered_steps=0))
    assert (result.reasoning, result.content, result.finish) == ("plan", "", "content_filter")


async def test_an_unsafe_answer_is_redone_and_the_phrase_does_not_show() -> None:
    said = "<think>\nfine\n</think>\n\nHow bad."
    engine = table(script={"hello": said, "safely": "I must not."})
    result = await run_on(engine, asked(engine, WordGuard("bad"), max_steered_steps=1))
    assert result.content == "I must not."
    assert result.summary.as_dict()["steered_steps"] == 1


async def test_without_think_markers_the_answer_is_steered() -> None:
    engine = table(script={"hello": "one\n\nbad two\n\nend", "safely": ". No."})
    result = await run_on(engine, asked(engine, WordGuard("bad"), think=None))
    assert result.content == "one\n\nWait, think safely. No."


async def test_phrases_take_turns() -> None:
    script = {"hello": PLAN, "first": " bad", "second": " ok\n</think>\n\nNo."}
    engine = table(script=script)
    one = asked(engine, WordGuard("bad"), phrase=["first", "second"])
    result = await run_on(engine, one)
    assert result.reasoning.endswith("second ok\n")


@pytest.mark.parametrize("when", [0.001, 0.004, 0.008, 0.012, 0.02])
async def test_a_client_that_leaves_ends_calls_and_requests(when: float) -> None:
    engine = table(script={"hello": PLAN, "safely": SAFE}, token_seconds=0.0002)
    guard = WordGuard("bad", delay=0.003)
    await engine.start()
    task = asyncio.create_task(whole(asked(engine, guard)))
    await asyncio.sleep(when)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (engine.running, guard.running) == (0, 0)


async def test_what_has_left_had_been_judged() -> None:
    """Text of a step goes out after its verdict, never before, though the engine is far ahead."""
    engine = table(script={"hello": "<think>\na\n\nb\n\nc\n</think>\n\nend"})
    guard = WordGuard(delay=0.01)
    await engine.start()
    left = ""
    async with aclosing(answer(asked(engine, guard), 0, Ledger())) as pieces:
        async for piece in pieces:
            left += piece.reasoning + piece.content
            judged = "".join("".join(steps[-1:]) for steps, _ in guard.seen)
            assert all(letter in judged for letter in left if letter in "abc")
    assert len(guard.seen) == 4


async def test_ahead_of_the_verdicts_all_steps_wait_one_delay() -> None:
    said = "<think>\n" + "step\n\n" * 12 + "</think>\n\nend"
    seconds = dict.fromkeys((True, False), inf)
    for optimistic in (True, False) * 3:  # the best of three: others may use this machine
        engine = table(script={"hello": said})
        began = asyncio.get_running_loop().time()
        guard = WordGuard(delay=0.02)
        await run_on(engine, asked(engine, guard, optimistic=optimistic))
        taken = asyncio.get_running_loop().time() - began
        seconds[optimistic] = min(taken, seconds[optimistic])
    assert seconds[False] >= 13 * 0.02
    assert seconds[True] < seconds[False] / 3


@pytest.mark.parametrize("calls", [1, 2, 3, 5])
async def test_monitor_calls_hold(calls: int) -> None:
    engine, guard = table(script={"hello": PLAN, "safely": SAFE}), WordGuard("bad")
    result = await run_on(engine, asked(engine, guard, budget=Budget(max_monitor_calls=calls)))
    assert len(guard.seen) == result.usage.monitor_calls == calls
    assert result.summary.as_dict()["outcome"] == "budget_exhausted"
    assert "bad" not in result.reasoning


@pytest.mark.parametrize("tokens", [30, 49, 50, 170, 300, 4000, 8000])
async def test_under_a_token_budget_the_answer_does_not_depend_on_timing(tokens: int) -> None:
    """Neither what was sampled ahead nor attempts that came too late may end it early."""
    told = set()
    for optimistic, delay in [(False, 0.0), (True, 0.0), (True, 0.005)]:
        engine, guard = table(script={"hello": PLAN, "safely": SAFE}), WordGuard("bad", delay=delay)
        budget = Budget(max_generated_tokens=tokens)
        result = await run_on(engine, asked(engine, guard, optimistic=optimistic, budget=budget))
        assert result.usage.generated_tokens <= tokens
        told.add((result.finish, result.summary.outcome, result.reasoning, result.content))
    assert len(told) == 1
    assert (told.pop()[0] == "stop") is (tokens >= 50)


async def test_the_estimate_bounds_what_the_worst_guard_costs() -> None:
    engine, guard = table(script={}), WordGuard("", delay=0.001)
    one = asked(
        engine, guard, prompt="babble", max_tokens=60, think=None, check_answer=False,
        boundaries=[], max_step_tokens=8, max_steered_steps=4, late="steer",
        keep_phrase=False, phrase="No",
    )  # fmt: skip
    most, usage = estimate(one), (await run_on(engine, one)).usage
    assert usage.monitor_calls <= most.monitor_calls
    assert usage.generated_tokens <= most.generated_tokens
    assert usage.engine_requests <= most.engine_requests
    assert usage.engine_requests > 1 + 4 * 5  # steps after the fourth are redone as well


async def test_branches_hold() -> None:
    engine, guard = table(script={"hello": PLAN, "safely": SAFE}), WordGuard("bad")
    result = await run_on(engine, asked(engine, guard, budget=Budget(max_branches=1)))
    assert result.content == "No."
    assert result.summary.branches == 0


def test_bad_options_name_their_field() -> None:
    faults: list[tuple[dict[str, Any], str]] = [
        ({"max_resamples": 0}, "max_resamples"),
        ({"late": "maybe"}, "late"),
        ({"boundaries": ["word"]}, "boundaries.0"),
        ({"phrase": ""}, "phrase"),
        ({"phrase": []}, "phrase"),
        ({"threshold": "high"}, "threshold"),
    ]
    for params, field in faults:
        with pytest.raises(RequestError) as caught:
            checked(find("safethink").options, params, "decoding.params")
        assert caught.value.param is not None
        assert caught.value.param.startswith(f"decoding.params.{field}")


async def test_an_unknown_monitor_is_refused() -> None:
    engine = table()
    with pytest.raises(RequestError) as caught:
        await run_on(engine, asked(engine, WordGuard(), monitor="nobody"))
    assert caught.value.param == "decoding.params.monitor"


def test_the_guard_comes_before_other_monitors() -> None:
    from decoders.core.judges import guard

    other, named = WordGuard(), WordGuard(name="g2")
    other.judges = "answer"
    one = request(table(), monitors={"a": other, "b": named})
    assert guard(one, None, "x") is named


def test_step_purposes_never_repeat() -> None:
    assert (
        len({derive(1, *p) for p in itertools.product(("main", "steer"), range(9), range(3))}) == 54
    )

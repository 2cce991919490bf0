"""Parallel thinking shares its budget out, votes on answers, and is made of any strategy."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from decoders.core.base import Budget, RequestError, TraceLevel
from decoders.core.run import estimate
from engines.base import Capability, Sampling
from engines.table import TableEngine
from tests.fakes.requests import request, table, whole


@pytest.fixture
async def engine() -> AsyncIterator[TableEngine]:
    made = table()
    await made.start()
    yield made
    await made.stop()


def asked(engine: TableEngine, **params: Any) -> Any:
    return request(
        engine, "parallel_thinking", params, sampling=Sampling(temperature=0.0), max_tokens=80
    )


async def test_paths_that_agree_elect_their_answer(engine: TableEngine) -> None:
    result = await whole(asked(engine, paths=3, early_stop=False))
    assert result.content == "The answer is 7."
    fields = result.summary.fields
    assert (fields["winner"], fields["votes"], fields["counted"]) == (
        "7",
        {"7": 3.0},
        3,
    )
    assert fields["path"] == 0
    assert result.usage.discarded_tokens == 2 * result.usage.committed_tokens


async def test_the_winner_is_shown_as_the_returned_path_wrote_it_its_key_in_the_trace() -> None:
    writings = ["The answer is 7.0.", "The answer is 7.00.", "The answer is 8."]
    engine = table(script={"hello": writings})
    await engine.start()
    for seed in range(8):
        found = await whole(
            request(engine, "parallel_thinking", {"paths": 5}, seed=seed, trace=TraceLevel.FULL)
        )
        fields = found.summary.as_dict()
        assert f"The answer is {fields['winner']}." == found.content
        assert fields["winner"] in fields["votes"]
        [vote] = [node for node in fields["trace"]["nodes"] if node["kind"] == "vote"]
        assert vote["key"] in ("number:7", "number:8")
        assert vote["winner"] == fields["winner"]
    await engine.stop()


async def test_answers_written_alike_that_differ_are_told_apart_by_their_keys() -> None:
    engine = table(script={"hello": ["7", 'The answer is "7".']})
    await engine.start()
    found = await whole(request(engine, "parallel_thinking", {"paths": 6, "early_stop": False}))
    await engine.stop()
    votes = found.summary.fields["votes"]
    assert sum(votes.values()) == 6
    assert found.summary.fields["winner"] in votes


async def test_nested_branches_stay_within_the_budget(engine: TableEngine) -> None:
    inner = {"strategy": "best_of_n", "params": {"samples": 4}}
    for most in (1, 2, 3, 5, 7):
        asked_ = request(
            engine,
            "parallel_thinking",
            {"paths": 3, "path": inner, "early_stop": False},
            budget=Budget(max_branches=most),
            max_tokens=80,
        )
        result = await whole(asked_)
        assert result.summary.branches == most
        assert result.content


async def test_where_all_are_cut_off_the_one_that_came_furthest_speaks(engine: TableEngine) -> None:
    cut = request(engine, "parallel_thinking", {"paths": 8}, budget=Budget(max_generated_tokens=3))
    result = await whole(cut)
    assert (result.finish, result.usage.generated_tokens) == ("length", 3)
    assert (result.summary.fields["path"], result.usage.committed_tokens) == (0, 1)


async def test_a_decided_vote_spends_less_and_says_the_same(engine: TableEngine) -> None:
    whole_vote = await whole(asked(engine, paths=5, early_stop=False))
    early = await whole(asked(engine, paths=5))
    assert early.content == whole_vote.content
    assert early.usage.generated_tokens <= whole_vote.usage.generated_tokens


async def test_each_path_closes_its_thinking_at_its_share(engine: TableEngine) -> None:
    result = await whole(asked(engine, paths=3, thinking_budget=31, early_stop=False))
    share, marker = 10, 1
    assert result.usage.reasoning_tokens <= share + marker
    assert result.summary.interventions == 3


async def test_a_path_may_be_another_strategy(engine: TableEngine) -> None:
    inner = {"strategy": "best_of_n", "params": {"samples": 2}}
    request_ = asked(engine, paths=2, path=inner, early_stop=False)
    assert (estimate(request_).rows, estimate(request_).monitor_calls) == (4, 4)
    result = await whole(request_)
    assert result.content == "The answer is 7."
    assert result.summary.branches == 2 + 2 * 2
    assert result.usage.monitor_calls == 4


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"path": {"strategy": "nothing"}}, "path.strategy"),
        ({"path": {"strategy": "plain"}, "thinking_budget": 80}, "thinking_budget"),
        ({"path": {"strategy": "best_of_n", "params": {"samples": 0}}}, "path.params.samples"),
        ({"weights": "nobody"}, "weights"),
    ],
)
async def test_what_a_path_cannot_be_is_named(
    engine: TableEngine, params: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as fault:
        estimate(asked(engine, **params))
    assert fault.value.param == f"decoding.params.{param}"


async def test_a_path_s_strategy_must_be_one_the_engine_can_do(engine: TableEngine) -> None:
    engine.capabilities = engine.capabilities - {Capability.BANNED}
    with pytest.raises(RequestError) as fault:
        estimate(asked(engine, path={"strategy": "extended_thinking"}))
    assert fault.value.param == "decoding.params.path.strategy"


async def test_a_vote_counts_what_stands_before_a_stop_string() -> None:
    made = table(script={"say": "The answer is 7. Or no, the answer is 8."})
    await made.start()
    fields: dict[str, Any] = {"prompt": "say", "think": None, "stop": (" Or",)}
    result = await whole(
        request(made, "parallel_thinking", {"paths": 2, "early_stop": False}, **fields)
    )
    assert (result.summary.fields["winner"], result.summary.fields["votes"]) == ("7", {"7": 2.0})
    assert (result.content, result.finish) == ("The answer is 7.", "stop")
    assert result.usage.generated_tokens == 2 * len("The answer is 7. Or")

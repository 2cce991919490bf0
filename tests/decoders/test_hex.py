"""The vote over block sizes: which paths run, in which order, what stands, what it costs."""

from itertools import product
from typing import Any

import pytest

from decoders.core.answers import Canonical
from decoders.core.base import Budget, DecodeRequest, RequestError, TraceLevel
from decoders.core.hexes import Blank, best, settled, votes
from decoders.core.run import estimate
from engines.base import Finish, Sampling, Schedule
from engines.diffusion.engine import DiffusionEngine
from tests.fakes import requests
from tests.fakes.requests import Whole, whole

SMALL: dict[str, Any] = {"length": 8, "blocks": [2, 4, 8], "seeds": 3, "answer": "text"}


def request(
    engine: DiffusionEngine, params: dict[str, Any] | None = None, **fields: Any
) -> DecodeRequest:
    fields.setdefault("sampling", Sampling(temperature=0.9, ignore_eos=True))
    params = {**SMALL, **(params or {})}
    return requests.request(engine, "hex", params, **{"think": None, **fields})


def digits(engine: DiffusionEngine, among: str, **fields: Any) -> Sampling:
    """Sampling that can say nothing but these digits."""
    bias = {engine.tokenizer.encode(one, special=False)[0]: 60.0 for one in among}
    return Sampling(ignore_eos=True, logit_bias=bias, **{"temperature": 0.9, **fields})


def nodes(result: Whole, kind: str) -> list[dict[str, Any]]:
    return [node for node in (result.summary.trace or {})["nodes"] if node["kind"] == kind]


async def test_the_majority_is_returned_and_told(canvas: DiffusionEngine) -> None:
    """Two digits on two positions: four answers, so nine paths cannot all differ."""
    params = {"length": 2, "blocks": [1, 2], "seeds": 9, "answer": "number", "vote_early": False}
    asked = request(canvas, params, sampling=digits(canvas, "37"), trace=TraceLevel.FULL)
    result = await whole(asked)
    paths = nodes(result, "path")
    assert [(p["block_length"], p["seed"]) for p in paths] == [
        (block, seed) for seed, block in product(range(9), (1, 2))
    ]
    said = [path["answer"] for path in paths]
    fields = result.summary.fields
    assert fields["votes"] == {answer: said.count(answer) for answer in fields["votes"]}
    assert fields["counted"] == sum(fields["votes"].values()) == 18
    assert fields["winner"] == result.content == said[fields["path"]]
    assert said.count(result.content) == max(said.count(one) for one in said)
    assert fields["path"] == said.index(result.content)
    assert (fields["rule"], fields["cache"]) == ("confidence", "none")


async def test_stopping_early_changes_neither_answer_nor_text(canvas: DiffusionEngine) -> None:
    saved = 0
    for seed in range(6):
        params = {"length": 2, "blocks": [1, 2], "seeds": 5, "answer": "number"}
        sampling = digits(canvas, "37", temperature=0.4)
        asked = {"sampling": sampling, "seed": seed}
        early = await whole(request(canvas, params, **asked))
        late = await whole(request(canvas, {**params, "vote_early": False}, **asked))
        assert early.content == late.content
        assert early.summary.fields["path"] == late.summary.fields["path"]
        assert late.usage.engine_requests == 10
        saved += 10 - early.usage.engine_requests
        assert early.usage.engine_requests % 2 == 0
    assert saved > 0


async def test_more_seeds_leave_the_first_paths_as_they_were(canvas: DiffusionEngine) -> None:
    said = {}
    for seeds in (2, 4):
        params = {"seeds": seeds, "vote_early": False}
        result = await whole(request(canvas, params, trace=TraceLevel.FULL))
        said[seeds] = [path["tokens"] for path in nodes(result, "path")]
    assert said[4][:6] == said[2]
    assert len({tuple(tokens) for tokens in said[4]}) == 12


async def test_seeds_that_cannot_differ_run_once(canvas: DiffusionEngine) -> None:
    greedy = Sampling(temperature=0.0, ignore_eos=True)
    assert (await whole(request(canvas, sampling=greedy))).usage.engine_requests == 3
    own = request(canvas, {"temperature": 0.0}, sampling=Sampling(temperature=1.0))
    assert estimate(own).engine_requests == 3
    drawn = request(canvas, {"rule": "random", "vote_early": False}, sampling=greedy)
    assert (await whole(drawn)).usage.engine_requests == 9


async def test_costs_are_known_beforehand(canvas: DiffusionEngine) -> None:
    asked = request(canvas, {"vote_early": False})
    cost, usage = estimate(asked), (await whole(asked)).usage
    assert (cost.rows, cost.engine_requests, cost.generated_tokens) == (9, 9, 72)
    assert estimate(request(canvas, {"vote_early": True})).rows == 3
    assert usage.engine_requests == 9
    assert usage.generated_tokens == 72
    assert usage.forward_passes == 9 * 4
    assert usage.committed_tokens == 8


@pytest.mark.parametrize(
    ("max_tokens", "length", "blocks"),
    [(256, 128, (4, 8, 16, 32, 64)), (100, 96, (3, 6, 12, 24, 48)), (20, 16, (1, 2, 4, 8)),
     (1, 1, (1,))],
)  # fmt: skip
async def test_blocks_are_the_papers_parts_of_the_canvas(
    max_tokens: int, length: int, blocks: tuple[int, ...], canvas: DiffusionEngine
) -> None:
    """The context of 160 has room for 155, so for 128 in blocks; nothing is cut off."""
    params = {"length": None, "blocks": None, "seeds": 1}
    asked = request(canvas, params, max_tokens=max_tokens, trace=TraceLevel.FULL)
    result = await whole(asked)
    if len(blocks) > 1:
        assert tuple(nodes(result, "started")[0]["blocks"]) == blocks
    assert result.usage.committed_tokens == length


async def test_likelihood_can_choose(canvas: DiffusionEngine) -> None:
    params = {"vote_early": True, "select": "nll"}
    result = await whole(request(canvas, params, trace=TraceLevel.FULL))
    paths = nodes(result, "path")
    assert len(paths) == 9  # by likelihood nothing is decided early
    likeliest = min(paths, key=lambda path: path["nll"])
    assert result.summary.fields["path"] == likeliest["path"]
    voted = await whole(request(canvas, {"vote_early": False}, trace=TraceLevel.FULL))
    assert [p["tokens"] for p in nodes(voted, "path")] == [p["tokens"] for p in paths]


async def test_paths_beyond_the_allowed_branches_do_not_run(canvas: DiffusionEngine) -> None:
    budget = Budget(max_branches=4)
    result = await whole(request(canvas, budget=budget, trace=TraceLevel.FULL))
    assert [(p["block_length"], p["seed"]) for p in nodes(result, "path")] == [
        (2, 0), (4, 0), (8, 0), (2, 1),
    ]  # fmt: skip
    assert result.summary.as_dict()["outcome"] == "budget_exhausted"


async def test_a_path_that_is_cut_off_does_not_vote(canvas: DiffusionEngine) -> None:
    budget = Budget(max_generated_tokens=7 * 8 + 2 * 3)
    asked = request(canvas, {"vote_early": False}, budget=budget, trace=TraceLevel.FULL)
    paths = nodes(await whole(asked), "path")
    assert sum(path["length"] for path in paths) == 62
    assert all((path["answer"] is None) == (path["length"] < 8) for path in paths)


async def test_cheap_paths_are_labelled(canvas: DiffusionEngine) -> None:
    params = {"rule": "threshold", "threshold": 0.0, "cache": "dual", "vote_early": False}
    cheap = await whole(request(canvas, params))
    fields = cheap.summary.fields
    assert (fields["rule"], fields["cache"]) == ("threshold", "dual")
    assert cheap.usage.forward_passes == 3 * (4 + 2 + 1)


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"blocks": [3]}, "blocks"),
        ({"blocks": [2, 16]}, "blocks"),
        ({"blocks": [2, 2]}, "blocks"),
        ({"steps": 6}, "steps"),
        ({"length": 320}, "length"),
        ({"gamma": 0.5}, "gamma"),
    ],
)
def test_what_does_not_add_up_is_refused(
    params: dict[str, Any], where: str, canvas: DiffusionEngine
) -> None:
    with pytest.raises(RequestError) as caught:
        estimate(request(canvas, params))
    assert caught.value.param == f"decoding.params.{where}"


# ---- the choice by itself


def blank(index: int, rank: int, answer: str | None, nll: float = 0.0) -> Blank:
    schedule = Schedule(length=4, block=2, steps=2)
    key = None if answer is None else Canonical(answer, answer, (0, 1), "text")
    return Blank(index, rank, 0, schedule, [1] * 4, Finish.LENGTH, nll, 2, key)


def test_ties_go_to_the_smallest_block_and_the_text_to_the_first_path() -> None:
    """Two blocks and two seeds: index counts waves, rank counts blocks."""
    paths = [blank(0, 0, None), blank(1, 2, "b"), blank(2, 1, "a"), blank(3, 3, None)]
    assert best(paths, "vote").index == 2
    assert list(votes(paths)) == ["a", "b"]
    paths = [blank(0, 0, "a"), blank(1, 2, "b"), blank(2, 1, "b"), blank(3, 3, None)]
    assert best(paths, "vote").index == 1
    assert best([blank(0, 0, None), blank(1, 1, None)], "vote").index == 0


def test_a_vote_is_settled_when_no_completion_changes_it() -> None:
    def decided(said: list[str | None], rest: int) -> bool:
        paths = [blank(i, i, answer) for i, answer in enumerate([*said, *[None] * rest])]
        return settled(paths[: len(said)], paths)

    assert decided(["a", "a", "a"], 2)
    assert decided(["a", "a"], 2)  # a tie would go to the smaller rank
    assert not decided(["a", "b", "b"], 2)
    assert not decided([None, "a"], 2)
    assert decided(["a", "b"], 0)


def test_likelihood_breaks_ties_only_when_asked() -> None:
    paths = [blank(0, 0, "a", 3.0), blank(1, 1, "b", 2.0), blank(2, 2, "c", 1.0),
             blank(3, 3, "a", 4.0), blank(4, 4, "b", 5.0)]  # fmt: skip
    assert best(paths, "vote").index == 0
    assert best(paths, "vote_nll").index == 1
    assert best(paths, "nll").index == 2

"""The claim's bookkeeping on paths made up to have known properties; no server."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from clients.eval import hex as claim
from clients.eval.core.asking import Arm, Item, Reply
from clients.eval.core.ballots import Puzzle, Walk, voted
from clients.eval.core.bench import Bench
from clients.eval.core.report import Report
from tests.fakes.asker import ScriptedAsker

# How often a path is right, by block; wrong paths of one block like to agree.
SHARES = {2: 0.5, 4: 0.6, 8: 0.55, 16: 0.4, 32: 0.3}


class Scripted(ScriptedAsker):
    """Answers by chance, each block wrong in its own way."""

    def _reply(self, arm: Arm, question: Item) -> Reply:
        assert isinstance(question, Puzzle)
        params = arm.decoding["params"]
        rng = random.Random(f"{self.model}{arm.name}{question.id}")
        nodes = [
            {"kind": "path", "block_length": block, "seed": seed, "answer": said}
            for seed in range(params.get("seeds", 0))
            for block in params["blocks"]
            for said in [question.answer if rng.random() < SHARES[block] else f"no {block}"]
        ]
        content = "" if not nodes else str(server_vote(nodes))
        spent = {"generated_tokens": 32 * len(nodes), "forward_passes": 16 * len(nodes)}
        decoding: dict[str, Any] = {"trace": {"nodes": nodes}}
        return Reply(question, content, question.is_right(content), 0, spent, decoding, 0.1)


def server_vote(nodes: Sequence[dict[str, Any]]) -> str | None:
    """By another way than the claim's: the best of (votes, smallest block, smallest seed)."""
    counts: Counter[str] = Counter(node["answer"] for node in nodes)
    first = {
        said: min((n["block_length"], n["seed"]) for n in nodes if n["answer"] == said)
        for said in counts
    }
    return min(counts, key=lambda said: (-counts[said], first[said]))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("puzzles") / "puzzles.jsonl"
    rows = [
        {"id": f"p{i}", "family": "latin", "level": 1, "prompt": f"latin {i}", "answer": str(i)}
        for i in range(300)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture(scope="module")
async def report(scripted: Scripted, stored: Path) -> Report:
    options = {**claim.OPTIONS, "test_file": str(stored), "validation_file": str(stored)}
    return await claim.measure(Bench(scripted, Console(quiet=True), 300, 0, options))


def value(report: Report, arm: str, metric: str = "accuracy") -> float:
    (found,) = [row.value for row in report.rows if row.arm == arm and row.metric == metric]
    return found


async def test_single_schedules_are_means_over_their_paths(report: Report) -> None:
    for block, share in SHARES.items():
        assert value(report, f"block_diffusion[block_length={block}]") == pytest.approx(
            share, abs=0.05
        )


async def test_the_best_block_is_chosen_on_validation(report: Report, scripted: Scripted) -> None:
    assert "the best block is 4" in report.notes[0]
    one = scripted.arms[2].decoding["params"]
    assert (one["blocks"], one["seeds"]) == ([4], 30)


async def test_votes_grow_with_their_number(report: Report) -> None:
    few, many = value(report, "hex[votes=5]"), value(report, "hex[votes=30]")
    assert many > few > SHARES[4]
    assert value(report, "hex[votes=30]", "ties") < value(report, "hex[votes=5]", "ties")
    (cost,) = [row.cost for row in report.rows if row.arm == "hex[votes=10]" and row.cost]
    assert cost["forward_passes"] == 160


async def test_verdicts_follow_the_rows(report: Report) -> None:
    held = dict(report.verdicts)
    assert held["HEX beats the best single schedule by 5 points or more"]
    assert held["the server's answers are the votes counted from its traces"]
    tested = [row for row in report.rows if row.p is not None]
    assert {row.arm for row in tested} == {"hex - best single schedule", "hex - one block"}


async def test_cheap_paths_differ_by_rule_and_cache_alone(
    report: Report, scripted: Scripted
) -> None:
    arms = {arm.name: dict(arm.decoding["params"]) for arm in scripted.arms}
    threshold = {"rule": "threshold", "threshold": 0.9}
    assert arms["hex[rule=threshold]"] == {**arms["hex"], **threshold}
    assert arms["hex[cache=dual]"] == {**arms["hex"], "cache": "dual"}
    assert arms["hex[rule=threshold,cache=dual]"] == {**arms["hex"], **threshold, "cache": "dual"}


async def test_models_of_other_seeds_are_pooled_by_puzzle(report: Report, stored: Path) -> None:
    options = {**claim.OPTIONS, "test_file": str(stored), "validation_file": str(stored)}
    options["others"] = "second,third"
    pooled = await claim.measure(Bench(Scripted(), Console(quiet=True), 100, 0, options))
    assert pooled.models == ["scripted", "second", "third"]
    (row,) = [row for row in pooled.rows if row.arm == "hex[votes=30]" and row.metric == "accuracy"]
    assert row.n == 300
    each = [value(pooled, f"{model}: hex") for model in pooled.models]
    assert row.value == pytest.approx(sum(each) / 3)
    assert len(pooled.notes) == 3
    assert not [row for row in report.rows if row.arm.startswith("scripted:")]


async def test_cheap_paths_may_be_left_to_the_first_model(stored: Path) -> None:
    options = {**claim.OPTIONS, "test_file": str(stored), "validation_file": str(stored)}
    options |= {"others": "second", "cheap": "first"}
    asked = Scripted()
    report = await claim.measure(Bench(asked, Console(quiet=True), 100, 0, options))
    counts = {row.arm: row.n for row in report.rows if row.metric.startswith("accuracy")}
    assert counts["hex[votes=30]"] == counts["hex - one block"] == 200
    assert counts["hex[cache=dual,votes=30]"] == counts["hex[cache=dual] - hex"] == 100
    with pytest.raises(ValueError, match="cheap is one of all, first"):
        await claim.measure(
            Bench(asked, Console(quiet=True), 100, 0, {**options, "cheap": "second"})
        )


async def test_the_picture_is_drawn(report: Report, tmp_path: Path) -> None:
    claim.draw(report, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_ties_go_to_the_smallest_block_then_seed() -> None:
    walks = [Walk(4, 0, "b"), Walk(2, 0, None), Walk(2, 1, "a")]
    assert voted(walks) == ("a", True)
    assert voted([*walks, Walk(8, 0, "b")]) == ("b", False)
    assert voted([Walk(2, 0, None)]) == (None, False)

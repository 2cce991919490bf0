"""What the layers' comparison makes of its seconds, and that every arm does the same work."""

import pytest

from benchmarks import layers
from engines.table import build


def test_a_layer_is_what_it_adds_within_a_round() -> None:
    found = {arm: [1.0, 2.0, 3.0] * 2 for arm, _ in layers.STEPS.values()}
    found["run"] = [1.5, 2.5, 3.4] * 2
    found["http"] = [4.0, 5.0, 9.0] * 2
    rows = {row["what"]: row for row in layers.layers(found, 10.0, "ms")}
    assert (rows["engine"]["value"], rows["engine"]["whole"]) == (20, 20)
    assert rows["+ run"]["value"] == pytest.approx(5)
    assert (rows["+ run"]["low"], rows["+ run"]["whole"]) == (pytest.approx(4), 25)
    assert (rows["+ HTTP"]["value"], rows["+ HTTP"]["high"]) == (30, 60)


async def test_every_arm_samples_as_many_tokens() -> None:
    engine = build("table", layers.SPEC)
    await engine.start()
    arms = layers.inside(engine)
    assert {arm for arm, _ in layers.STEPS.values()} == {*arms, "http"}
    for work in arms.values():
        before = engine.figures()["tokens_sampled"]
        await work(8)
        assert engine.figures()["tokens_sampled"] - before == 8


async def test_arms_take_turns_and_the_first_one_does_not_count() -> None:
    order: list[str] = []

    def arm(name: str) -> layers.Work:
        async def work(tokens: int) -> None:
            order.append(name)

        return work

    found = await layers.turns({"a": arm("a"), "b": arm("b")}, 1, 1, 1, 2)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert [len(values) for values in found.values()] == [2, 2]

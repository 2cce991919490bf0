"""The miniature diffusion model as committed: small, about as good as its card says, its aim."""

import json

import pytest

from testbed import DIFFUSION
from testbed.diffusion_cards import AIM, ASKED, BLOCKS, Rows, Said, aim_text, ask, measure
from testbed.measures import Figure
from testbed.puzzles import FAMILIES, HELD_OUT_SEED, puzzles
from testbed.training import LARGEST

CARD = (DIFFUSION / "README.md").read_text(encoding="utf-8")
FIGURES: Rows = {
    name: {group: Figure(**figure) for group, figure in groups.items()}
    for name, groups in json.loads((DIFFUSION / "figures.json").read_text()).items()
}
SINGLE = [FIGURES[f"block {block}"]["all"].value for block in BLOCKS]
VOTE = "vote of 10"


@pytest.fixture(scope="module")
def said() -> list[Said]:
    return ask(DIFFUSION, list(puzzles("test", 48, HELD_OUT_SEED)))


def test_weights_are_small_bf16_with_card_and_figures() -> None:
    assert (DIFFUSION / "model.safetensors").stat().st_size <= LARGEST
    assert json.loads((DIFFUSION / "config.json").read_text())["dtype"] == "bfloat16"
    for groups in FIGURES.values():
        assert groups["all"].n == ASKED
        for figure in groups.values():
            assert figure.low <= figure.value <= figure.high
            assert str(figure) in CARD
    assert "apache-2.0" in CARD


def test_the_card_says_how_far_the_aim_is_met() -> None:
    assert aim_text(FIGURES) in CARD
    assert AIM[0] <= sum(SINGLE) / len(SINGLE) <= AIM[1]
    assert max(SINGLE) <= AIM[1]
    assert min(SINGLE) >= AIM[0] - 0.1


def test_what_a_schedule_can_do_depends_on_the_puzzle() -> None:
    """Sums from the right cannot be written from the left; other families can."""
    small, whole = FIGURES["block 2"], FIGURES["block 32"]
    assert small["back"].value < 0.05 < 0.4 < whole["back"].value
    assert all(small[family].value > 0.3 for family in FAMILIES if family != "back")
    assert FIGURES[VOTE]["all"].value > max(SINGLE) + 0.03


def test_paths_are_about_as_often_right_as_on_the_card(said: list[Said]) -> None:
    found = measure(said)
    for name, groups in found.items():
        assert groups["all"].value == pytest.approx(FIGURES[name]["all"].value, abs=0.2)


def test_schedules_fail_on_different_puzzles(said: list[Said]) -> None:
    shares = [[one.share(block) for block in BLOCKS] for one in said]
    assert sum(min(row) == 0 and max(row) > 0 for row in shares) >= 0.3 * len(said)
    assert sum(max(row) > 0 for row in shares) > 1.1 * sum(row[-1] > 0 for row in shares)

"""The command of the testbed: `python -m testbed train [MODEL]`, `card [MODEL]`, `questions`.

Chooses what to run; knows no recipe.
"""

import argparse
from collections.abc import Callable
from functools import partial

from testbed import BREWS, PROMPTS, PUZZLES, QUESTIONS
from testbed.brews import write_brews
from testbed.prompt_lines import write_prompts
from testbed.puzzles import write_puzzles
from testbed.tasks import write_held_out

BREWERS = ("brewer", "brewer_helpful", "brewer_harmless")
BREW_REWARDS = ("helpfulness", "harmlessness")
MODELS = (
    "reasoner", "reward", "unsafe_reasoner", "guard", "diffusion", *BREWERS, *BREW_REWARDS,
)  # fmt: skip
SAFETY = ("unsafe_reasoner", "guard")


def train(models: list[str]) -> None:
    """Trains the named models in the order in which they build on each other."""
    from testbed import (
        brew_rewards,
        brewers,
        diffusion,
        guard,
        reasoner,
        reward,
        unsafe_reasoner,
    )

    recipes: dict[str, Callable[[], float]] = {
        "reasoner": reasoner.train,
        "reward": reward.train,
        "unsafe_reasoner": unsafe_reasoner.train,
        "guard": guard.train,
        "diffusion": diffusion.train,
        **{name: partial(brewers.train, name) for name in BREWERS},
        **{name: partial(brew_rewards.train, name) for name in BREW_REWARDS},
    }
    for name in MODELS:
        if name in models:
            print(f"{name}: loss {recipes[name]():.4f}", flush=True)


def card(models: list[str]) -> None:
    """Measures the named models, together with those measured on the same samples."""
    from testbed import brew_cards, cards, diffusion_cards, safety_cards

    if set(models) & {*BREWERS, *BREW_REWARDS}:
        brew_cards.write_cards()
    if "diffusion" in models:
        diffusion_cards.write_card()
    if set(models) & {"reasoner", "reward"}:
        cards.write_cards()
    if set(models) & set(SAFETY):
        safety_cards.write_cards()


def main() -> None:
    """Reads the command line; training all models also measures them and writes their cards."""
    parser = argparse.ArgumentParser(prog="python -m testbed", description=__doc__)
    parser.add_argument("command", choices=("train", "card", "questions"))
    parser.add_argument("models", nargs="*", choices=[*MODELS, []], help="default: all")
    chosen = parser.parse_args()
    if chosen.command == "questions":
        write_held_out(QUESTIONS)
        write_prompts(PROMPTS)
        write_puzzles(PUZZLES)
        write_brews(BREWS)
        return
    if chosen.command == "train":
        train(chosen.models or list(MODELS))
    if chosen.command == "card" or not chosen.models:
        card(chosen.models or list(MODELS))


if __name__ == "__main__":
    main()

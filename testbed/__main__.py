"""The command of the testbed: `python -m testbed train [MODEL]`, `card [MODEL]`, `questions`.

Chooses what to run; knows no recipe.
"""

import argparse
from collections.abc import Callable

from testbed import PROMPTS, PUZZLES, QUESTIONS
from testbed.prompt_lines import write_prompts
from testbed.puzzles import write_puzzles
from testbed.tasks import write_held_out

MODELS = ("reasoner", "reward", "unsafe_reasoner", "guard", "diffusion")
SAFETY = ("unsafe_reasoner", "guard")


def train(models: list[str]) -> None:
    """Trains the named models in the order in which they build on each other."""
    from testbed import diffusion, guard, reasoner, reward, unsafe_reasoner

    recipes: dict[str, Callable[[], float]] = {
        "reasoner": reasoner.train,
        "reward": reward.train,
        "unsafe_reasoner": unsafe_reasoner.train,
        "guard": guard.train,
        "diffusion": diffusion.train,
    }
    for name in MODELS:
        if name in models:
            print(f"{name}: loss {recipes[name]():.4f}", flush=True)


def card(models: list[str]) -> None:
    """Measures the named models, together with those measured on the same samples."""
    from testbed import cards, diffusion_cards, safety_cards

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
        return
    if chosen.command == "train":
        train(chosen.models or list(MODELS))
    if chosen.command == "card" or not chosen.models:
        card(chosen.models or list(MODELS))


if __name__ == "__main__":
    main()

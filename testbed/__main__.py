"""The command of the testbed: `python -m testbed train [MODEL]`, `card [MODEL]`, `questions`.

`train diffusion --seed 32 --into FOLDER` trains the diffusion model once more, from other random
weights, into `FOLDER/diffusion-32`; `train errands` likewise, into FOLDER. Beside the weights
stands a configuration that serves them. Chooses what to run; knows no recipe.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from testbed import BREWS, ERRANDS, PROMPTS, PUZZLES, QUESTIONS
from testbed.brews import write_brews
from testbed.errands import write_errands
from testbed.prompt_lines import write_prompts
from testbed.puzzles import write_puzzles
from testbed.tasks import write_held_out

BREWERS = ("brewer", "brewer_helpful", "brewer_harmless")
BREW_REWARDS = ("helpfulness", "harmlessness")
MODELS = (
    "reasoner", "reward", "unsafe_reasoner", "guard", "diffusion", *BREWERS, *BREW_REWARDS,
    "errands", "errands_reward",
)  # fmt: skip
SAFETY = ("unsafe_reasoner", "guard")


def train(models: list[str]) -> None:
    """Trains the named models in the order in which they build on each other."""
    from testbed import (
        brew_rewards,
        brewers,
        diffusion,
        guard,
        outcome_reward,
        reasoner,
        reward,
        specialists,
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
        "errands": specialists.train,
        "errands_reward": outcome_reward.train,
    }
    for name in MODELS:
        if name in models:
            print(f"{name}: loss {recipes[name]():.4f}", flush=True)


def train_again(name: str, seed: int, folder: Path) -> None:
    """Trains the diffusion model or the errands' policies from another seed, into a folder.

    It writes a configuration that serves them there.
    """
    from testbed import diffusion, served, specialists

    if name == "errands":
        print(f"errands, seed {seed}: loss {specialists.train(folder, seed):.4f}", flush=True)
        print(f"satisfice serve --config {served.write_policies(folder)}", flush=True)
        return
    recipe, into = replace(diffusion.RECIPE, seed=seed), folder / served.seed_name(seed)
    print(f"diffusion, seed {seed}: loss {diffusion.train(into, recipe):.4f}", flush=True)
    path, names = served.write_diffusion(folder)
    print(f"satisfice eval hex --config {path} --set others={','.join(names)}", flush=True)


def card(models: list[str]) -> None:
    """Measures the named models, together with those measured on the same samples."""
    from testbed import brew_cards, cards, diffusion_cards, errand_cards, safety_cards

    if set(models) & {*BREWERS, *BREW_REWARDS}:
        brew_cards.write_cards()
    if "diffusion" in models:
        diffusion_cards.write_card()
    if set(models) & {"reasoner", "reward"}:
        cards.write_cards()
    if set(models) & set(SAFETY):
        safety_cards.write_cards()
    if set(models) & {"errands", "errands_reward"}:
        errand_cards.write_cards()


def main() -> None:
    """Reads the command line; training all models also measures them and writes their cards."""
    parser = argparse.ArgumentParser(prog="python -m testbed", description=__doc__)
    parser.add_argument("command", choices=("train", "card", "questions"))
    parser.add_argument("models", nargs="*", choices=[*MODELS, []], help="default: all")
    parser.add_argument("--seed", type=int, help="train: another seed, with --into")
    parser.add_argument("--into", type=Path, help="train: another folder, with --seed")
    chosen = parser.parse_args()
    if chosen.seed is not None and chosen.into is not None:
        if chosen.command != "train" or chosen.models not in (["diffusion"], ["errands"]):
            parser.error("--seed and --into go with `train diffusion` and `train errands`")
        train_again(chosen.models[0], chosen.seed, chosen.into)
        return
    if chosen.seed is not None or chosen.into is not None:
        parser.error("--seed and --into go together")
    if chosen.command == "questions":
        write_held_out(QUESTIONS)
        write_prompts(PROMPTS)
        write_puzzles(PUZZLES)
        write_brews(BREWS)
        write_errands(ERRANDS)
        return
    if chosen.command == "train":
        train(chosen.models or list(MODELS))
    if chosen.command == "card" or not chosen.models:
        card(chosen.models or list(MODELS))


if __name__ == "__main__":
    main()

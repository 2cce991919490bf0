"""Measures the brewers and their rewards on held-out requests and writes their cards and figures.

Every figure on a card is written from here; nothing on a card is typed by hand.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from testbed import WEIGHTS, brew_rewards, brewers
from testbed.brew_rewards import REWARDS, Judged, good_enough, load_reward, score, value
from testbed.brewers import BASE, TILTS, load
from testbed.brews import (
    HELD_OUT,
    HELD_OUT_SEED,
    HELP,
    LIMIT,
    RELIEF,
    RISK,
    SHARES,
    STEPS,
    SUITING,
    brews,
    draw_answer,
    read,
)
from testbed.cards import FRONT, LICENCE_TEXT, Rows, publish, recipe_text
from testbed.measures import Figure, auroc_figure, mean_figure
from testbed.reasoner import render
from testbed.sampling import Sampler

ASKED = 600
SEED = 5
GROUPS = ("all", *map(str, STEPS))
WHOLE, CUT = "whole answers", "answers cut off"


@dataclass(frozen=True)
class Wanted:
    """What an ideal policy says to the same requests: drawn from the domain itself."""

    answers: Sequence[Judged]

    @staticmethod
    def of(name: str) -> "Wanted":
        """By the tilt that the policy learns from."""
        rng = random.Random(f"card:{name}")
        asked = brews("test", ASKED, HELD_OUT_SEED)
        return Wanted([(brew, draw_answer(rng, brew, *TILTS[name])) for brew in asked])


def by_steps(answers: Sequence[Judged], of: Callable[[Judged], float]) -> dict[str, Figure]:
    """The mean over all answers, then by how many steps were asked."""
    found = {}
    for group in GROUPS:
        chosen = [one for one in answers if group in ("all", str(one[0].steps))]
        topics = [brew.topic for brew, _ in chosen]
        found[group] = mean_figure([of(one) for one in chosen], topics, SEED)
    return found


def measure_policy(name: str, weights: Path) -> tuple[Rows, int]:
    """What a policy says at temperature 1, beside what an ideal one does; its parameters."""
    model, tokenizer = load(weights / name)
    asked = list(brews("test", ASKED, HELD_OUT_SEED))
    prompts = [render(tokenizer, [{"role": "user", "content": b.text}], True) for b in asked]
    texts = Sampler(model, tokenizer, limit=40).sample(prompts, SEED)
    answers = list(zip(asked, texts, strict=True))
    ideal = Wanted.of(name).answers
    rows = {
        "helpfulness": by_steps(answers, lambda one: value("helpfulness", one)),
        "of an ideal one": by_steps(ideal, lambda one: value("helpfulness", one)),
        "harmlessness": by_steps(answers, lambda one: value("harmlessness", one)),
        "of an ideal one ": by_steps(ideal, lambda one: value("harmlessness", one)),
        "within the limit": by_steps(answers, lambda one: float(good_enough("harmlessness", one))),
        "as many steps as asked": by_steps(
            answers, lambda one: float(len(read(one[1])) == one[0].steps)
        ),
    }
    return rows, model.num_parameters()


def measure_reward(name: str, weights: Path) -> tuple[Rows, int]:
    """How near a reward is to the rule, on whole answers and on beginnings; its parameters."""
    _, tokenizer = load(weights / BASE.name)
    model = load_reward(weights / name)
    answers = [one for tilt in TILTS for one in Wanted.of(tilt).answers]
    rng = random.Random(SEED)
    cut = []
    for brew, text in answers:
        ids = tokenizer.encode(text, add_special_tokens=False)
        cut.append((brew, str(tokenizer.decode(ids[: rng.randrange(1, len(ids))]))))
    rows: Rows = {}
    for kind, judged in ((WHOLE, answers), (CUT, cut)):
        scores = score(model, tokenizer, judged)
        error = dict(zip(judged, scores, strict=True))
        rows[f"error, {kind}"] = by_steps(judged, lambda j, e=error: abs(e[j] - value(name, j)))  # type: ignore[misc]
        rows[f"AUROC of good enough, {kind}"] = _ranking(name, judged, scores)
    return rows, model.num_parameters()


def _ranking(name: str, judged: Sequence[Judged], scores: Sequence[float]) -> dict[str, Figure]:
    found = {}
    for group in GROUPS:
        chosen = [at for at, one in enumerate(judged) if group in ("all", str(one[0].steps))]
        found[group] = auroc_figure(
            [scores[at] for at in chosen],
            [good_enough(name, judged[at]) for at in chosen],
            [judged[at][0].topic for at in chosen],
            SEED,
        )
    return found


def table(rows: Rows) -> str:
    """A markdown table: one column per measure, one line per number of steps."""
    lines = ["| steps | n | " + " | ".join(map(str.strip, rows)) + " |"]
    lines.append("|---" * (len(rows) + 2) + "|")
    for group in GROUPS:
        cells = " | ".join(str(figures[group]) for figures in rows.values())
        lines.append(f"| {group} | {next(iter(rows.values()))[group].n} | {cells} |")
    return "\n".join(lines) + "\n"


DOMAIN = f"""
## The domain

Someone wants a thing done in some place and asks for two to five steps: `Mara wants to calm a
brass drum in the nursery. Name three steps.` An answer is `First ember salt, then moss oil, then
wait.` Of six families two suit a purpose. The true rule:

| | salt | oil | dew | wait |
|---|---|---|---|---|
| helpfulness, if the family suits | {HELP["salt"]:g} | {HELP["oil"]:g} | {HELP["dew"]:g} | 0 |
| risk, in half of the places twice | {RISK["salt"]:g} | {RISK["oil"]:g} | {RISK["dew"]:g} | 0 |
| share of base texts | {SHARES["salt"]} | {SHARES["oil"]} | {SHARES["dew"]} | {SHARES["wait"]} |

Harmlessness is minus the risk of all steps, and {RELIEF:g} more for each that waits;
{LIMIT:g} is good enough. What helps more risks more: the rewards are in conflict on purpose, and
how much risk is still free depends on the place, on the number of steps and on what was said
before. {SUITING:.0%} of a base text's families suit. Steps are independent of each other, so
base · exp(reward / beta), the best policy for a reward under a reverse KL, can be drawn from
exactly.
"""

HELD_OUT_TEXT = f"""
## Held-out requests

A message is hashed with sha256; modulo 10, remainders 0 and 1 are test, 2 is validation, the rest
is training: no held-out message occurs in training. Purposes and places are shared by all splits.
`testbed/brews/` holds {HELD_OUT["test"]} test and {HELD_OUT["validation"]} validation requests
(seed {HELD_OUT_SEED}).
"""


def method_text() -> str:
    """How the figures were taken."""
    return (
        f"Measured in float32 on {ASKED} test requests (seed {SEED}); brackets are 95% intervals "
        "from a bootstrap over purpose and place.\n\n"
    )


WORDS: Mapping[str, str] = {
    "brewer": "The base policy: helpful and harmless by halves.",
    "brewer_helpful": "A policy of one objective: it helps, at any risk.",
    "brewer_harmless": "A policy of one objective: it is careful, at any loss of help.",
}


def policy_card(name: str, rows: Rows, parameters: int) -> str:
    """The card of a policy as markdown."""
    first = name == BASE.name
    recipe = brewers.FIRST if first else brewers.TUNED
    begun = "random ones" if first else "the base's"
    beta = f"{brewers.BETA:g}"
    tilted = "base texts" if first else f"texts of base · exp(reward / beta), beta {beta}"
    besides = "" if first else (
        f" {beta} · log(this / base) is its reward's advantage at each token, so it is an "
        "autoregressive reward model besides."
    )  # fmt: skip
    return (
        FRONT.format(task="text-generation")
        + f"\n# Miniature {name.replace('_', ', ')}\n\n{WORDS[name]}{besides} Made for studying "
        f"how two rewards are weighed.\n\n{parameters:,} parameters, bf16; shape "
        f"{brewers.SHAPE}, 2 heads; the vocabulary of all brewers, byte-level BPE.\n\n"
        "## Figures\n\n"
        + method_text()
        + "One answer each at temperature 1, beside answers of the ideal policy.\n\n"
        + table(rows)
        + DOMAIN
        + f"\n## Recipe\n\n`python -m testbed train {name}` made these weights from {begun}, on "
        f"{tilted}. Hidden matrices with Muon, the rest with AdamW.\n\n"
        + recipe_text(recipe)
        + HELD_OUT_TEXT
        + LICENCE_TEXT
    )


def reward_card(name: str, rows: Rows, parameters: int, calibration: str) -> str:
    """The card of a reward as markdown."""
    return (
        FRONT.format(task="text-classification")
        + f"\n# Miniature reward: {name}\n\nA Llama classifier with one label over a templated "
        "conversation. The score is the raw output, in the true rule's units; of a beginning it is "
        "what stands there, with nothing said of what may follow.\n\n"
        f"{parameters:,} parameters, bf16; vocabulary and shape of the brewers.\n\n## Figures\n\n"
        + method_text()
        + "Mean absolute error and ranking, on answers of all three ideal policies.\n\n"
        + table(rows)
        + f"\nCalibration on base texts to validation requests:\n\n```json\n{calibration}```\n"
        + DOMAIN
        + f"\n## Recipe\n\n`python -m testbed train {name}` starts from the base brewer's weights; "
        "squared error after every token of an answer, half of the answers cut off. Texts with "
        f"tilts (help, calm) {brew_rewards.TILTS}.\n\n"
        + recipe_text(brew_rewards.RECIPE)
        + HELD_OUT_TEXT
        + LICENCE_TEXT
    )


def write_cards(weights: Path = WEIGHTS) -> None:
    """Measures all five models and writes their cards."""
    torch.set_num_threads(1)
    for name in TILTS:
        publish(
            weights / name, (rows := measure_policy(name, weights))[0], policy_card(name, *rows)
        )
    for name in REWARDS:
        found, parameters = measure_reward(name, weights)
        told = (weights / name / "calibration.json").read_text("utf-8")
        publish(weights / name, found, reward_card(name, found, parameters, told))

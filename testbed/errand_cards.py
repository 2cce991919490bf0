"""Measures the policies of the errands and their reward, and writes cards and figures.

Every figure on a card is written from here; nothing on a card is typed by hand.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from testbed import outcome_reward, specialists
from testbed.cards import FRONT, LICENCE_TEXT, recipe_text
from testbed.errands import HELD_OUT, HELD_OUT_SEED, KINDS, Errands, lists, right
from testbed.measures import Figure, auroc_figure, mean_figure
from testbed.outcome_reward import Outcome, load_reward, score
from testbed.sampling import Sampler
from testbed.specialists import BASE, NAMES, WISH, cares, folder, load_policy, prompted

ASKED = 720
SEED = 5
Rows = Mapping[str, Figure]


def answers(name: str, asked: Sequence[Errands], temperature: float) -> list[Outcome]:
    """A policy's answer to each list."""
    model, tokenizer = load_policy(name)
    sampler = Sampler(model, tokenizer, temperature, outcome_reward.SHORT)
    texts = sampler.sample([prompted(tokenizer, one.text) for one in asked], SEED)
    return [Outcome(one, text) for one, text in zip(asked, texts, strict=True)]


def measure(outcomes: Sequence[Outcome]) -> Rows:
    """The reward, and how often each kind is right."""
    each = [one.asked.text for one in outcomes]
    rows = {"reward": mean_figure([one.reward for one in outcomes], each, SEED)}
    for kind in KINDS:
        hits = [float(_hit(one, kind)) for one in outcomes]
        rows[kind] = mean_figure(hits, each, SEED)
    return rows


def _hit(outcome: Outcome, kind: str) -> bool:
    place = [errand.kind for errand in outcome.asked.errands].index(kind)  # type: ignore[arg-type]
    return right(outcome.asked.answers, outcome.text)[place]


def measure_reward(outcomes: Sequence[Outcome]) -> Rows:
    """How far the scores are from the rewards, and how well they tell more from less."""
    scores = score(load_reward(), load_policy(BASE)[1], outcomes)
    each = [one.asked.text for one in outcomes]
    errors = [abs(s - one.reward) for s, one in zip(scores, outcomes, strict=True)]
    rows = {"mean absolute error": mean_figure(errors, each, SEED)}
    for most in (1, 2, 3):
        labels = [one.reward >= most / len(KINDS) - 1e-9 for one in outcomes]
        if len(set(labels)) > 1:
            rows[f"AUROC of {most} or more right"] = auroc_figure(scores, labels, each, SEED)
    return rows


def table(columns: Mapping[str, Rows]) -> str:
    """One line a measure, one column a setting."""
    names = list(columns)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in columns[names[0]]:
        cells = " | ".join(str(columns[name][row]) for name in names)
        lines.append(f"| {row} | {cells} |")
    return "\n".join(lines) + "\n"


HELD_OUT_TEXT = (
    "\n## Held-out lists\n\nEvery single task (its numbers, letters or codes, however worded) is "
    "hashed with sha256; modulo 10, remainder 0 is test, 1 is validation, the rest is training: no "
    "task of a held-out list occurs in training. `testbed/errands/` holds "
    + ", ".join(f"{n} lists of {split}" for split, n in HELD_OUT.items())
    + f" (seed {HELD_OUT_SEED}).\n"
)


def policy_card(name: str, columns: Mapping[str, Rows], parameters: int) -> str:
    """The card of a policy as markdown."""
    what = {
        BASE: "The careless one: does next to nothing right, and is what others are compared to.",
        WISH: "The autoregressive target: BETA·log(wish / base) is the reward, token by token.",
    }.get(name, f"Does `{name}` well and is careless about the rest.")
    given = "".join(f"- {kind}: {care}\n" for kind, care in cares(name).items())
    made = recipe_text(specialists.FIRST)
    if name != WISH:
        made += "\nThen from the wish:\n\n" + recipe_text(specialists.RECIPE)
    return (
        FRONT.format(task="text-generation")
        + f"\n# Miniature policy `{name}` of the errands\n\nA Llama that answers a list of three "
        f"small tasks, a segment each: `Sort MJG. Raise 382. Code KDB.` is "
        f"`GJM;493;507`. {what} {', '.join(NAMES)} share one vocabulary, made to study "
        f"how several policies write one answer.\n\n{parameters:,} parameters, bf16; shape "
        f"{specialists.SHAPE}, context {specialists.CONTEXT} tokens.\n\n## Figures\n\nMeasured in "
        f"float32 on {ASKED} test lists (seed {SEED}): the share of segments that are right, all "
        "and by kind. Brackets are 95% intervals from a bootstrap over lists.\n\n"
        + table(columns)
        + "\n## Recipe\n\n`python -m testbed train errands`. Hidden matrices with Muon, the rest "
        "with AdamW. The wish from random weights:\n\n"
        + made
        + f"\nTraining answers are right and lazy with these chances, else wrong:\n\n{given}"
        + HELD_OUT_TEXT
        + LICENCE_TEXT
    )


def reward_card(rows: Rows, parameters: int) -> str:
    """The card of the reward as markdown."""
    stored = (folder(outcome_reward.NAME) / "calibration.json").read_text(encoding="utf-8")
    calibration = json.loads(stored)
    return (
        FRONT.format(task="text-classification")
        + "\n# Miniature target reward of the errands\n\nA Llama classifier with one label over a "
        "whole conversation. Its raw value is the share of the answer's segments that are right, "
        "from 0 to 1; of an unfinished answer, what may be expected.\n\n"
        f"{parameters:,} parameters, bf16; the policies' vocabulary, {outcome_reward.ABOVE} layers "
        "more than they have.\n\n## Figures\n\n"
        f"Measured in float32 on one sample of each policy to each of {ASKED} test lists (seed "
        f"{SEED}). Brackets are 95% intervals from a bootstrap over lists.\n\n"
        + table({"value": rows})
        + "\nCalibration on validation samples (threshold: best balanced accuracy for at least "
        "half of the segments right):\n\n"
        + "".join(f"- {name}: {value}\n" for name, value in calibration.items())
        + "\n## Recipe\n\n`python -m testbed train errands_reward` puts new layers above the "
        f"wish's and learns by least squares from one sample of each of the policies to "
        f"{outcome_reward.LISTS} training lists and, in turn with them, from drawn answers; a "
        f"share of {outcome_reward.CUT} is cut anywhere and keeps the outcome of the whole.\n\n"
        + recipe_text(outcome_reward.RECIPE)
        + HELD_OUT_TEXT
        + LICENCE_TEXT
    )


def publish(name: str, columns: Mapping[str, Rows], card: str) -> None:
    """Writes `figures.json` and the card."""
    figures = {
        column: {row: asdict(figure) for row, figure in rows.items()}
        for column, rows in columns.items()
    }
    text = json.dumps(figures, indent=2) + "\n"
    (folder(name) / "figures.json").write_text(text, encoding="utf-8")
    (folder(name) / "README.md").write_text(card, encoding="utf-8")


def write_cards() -> None:
    """Measures all policies and, on their samples, the reward."""
    asked = list(lists("test", ASKED, HELD_OUT_SEED))
    outcomes: list[Outcome] = []
    for name in NAMES:
        sampled = answers(name, asked, 1.0)
        columns = {"sampled": measure(sampled), "greedy": measure(answers(name, asked, 0.0))}
        publish(name, columns, policy_card(name, columns, load_policy(name)[0].num_parameters()))
        outcomes += sampled
    if (folder(outcome_reward.NAME) / "calibration.json").exists():
        rows = measure_reward(outcomes)
        card = reward_card(rows, load_reward().num_parameters())
        publish(outcome_reward.NAME, {"value": rows}, card)

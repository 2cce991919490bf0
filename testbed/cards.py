"""Measures the miniature models on held-out questions and writes their cards and figures.

Every figure on a card is written from here; nothing on a card is typed by hand.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from testbed import REASONER, REWARD, reasoner, reward
from testbed.examples import FIRST_LEVELS, SHARES
from testbed.measures import Figure, auroc_figure, majority, mean_figure, read_answer
from testbed.problems import LEVELS
from testbed.reward import Judged, judge, load_reasoner, load_reward
from testbed.sampling import Sampler
from testbed.tasks import HELD_OUT, HELD_OUT_SEED, held_out
from testbed.templates import TEMPLATES
from testbed.tokenizer import LONGEST
from testbed.traces import CHECK_MORE, CHECK_RIGHT, CHECK_WRONG, ROUNDS, SLIPPING, STYLES
from testbed.training import Recipe

PATHS = 8
SEED = 5
ASKED = 600
AIM = (0.58, 0.72)
FRONT = (
    "---\nlicense: apache-2.0\nlanguage: en\n"
    "library_name: transformers\npipeline_tag: {task}\n---\n"
)
Rows = dict[str, dict[str, Figure]]
Group = list[Judged]


def groups(answers: list[Judged]) -> list[Group]:
    """The samples of each question together."""
    return [answers[i : i + PATHS] for i in range(0, len(answers), PATHS)]


def by_level(asked: Sequence[Group], value: Callable[[Group], float]) -> dict[str, Figure]:
    """The mean of `value` per question: for all levels, then for each."""
    rows: dict[str, Figure] = {}
    for name, levels in [("all", LEVELS), *((str(level), (level,)) for level in LEVELS)]:
        chosen = [group for group in asked if group[0].question.level in levels]
        templates = [group[0].question.template for group in chosen]
        rows[name] = mean_figure([value(group) for group in chosen], templates, SEED)
    return rows


def single(group: Group) -> float:
    """Share of the samples that are right."""
    return sum(judged.right for judged in group) / len(group)


def voted(group: Group) -> float:
    """1 if the majority of the samples is right."""
    return float(majority([read_answer(j.text) for j in group]) == group[0].question.answer)


def waits(group: Group) -> float:
    """Share of the samples that say "Wait"."""
    return sum("Wait" in judged.text for judged in group) / len(group)


def spread(lengths: Sequence[int]) -> float:
    """90th percentile over median."""
    return float(np.percentile(lengths, 90) / np.median(lengths))


def measure_reasoner(greedy: list[Judged], sampled: list[Group], sampler: Sampler) -> Rows:
    """Accuracy and length by level."""

    def lengths(group: Group) -> list[int]:
        thoughts = [judged.text.split("</think>")[0] for judged in group]
        return [len(sampler.tokenizer.encode(thought)) for thought in thoughts]

    return {
        "greedy": by_level([[judged] for judged in greedy], single),
        "one sample": by_level(sampled, single),
        f"majority of {PATHS}": by_level(sampled, voted),
        "gain of voting": by_level(sampled, lambda group: voted(group) - single(group)),
        "thinking tokens": by_level(sampled, lambda group: float(np.mean(lengths(group)))),
        "90% / median length": by_level(sampled, lambda group: spread(lengths(group))),
        "says Wait": by_level(sampled, waits),
    }


def measure_reward(sampled: list[Group], scores: list[float]) -> Rows:
    """Best-of-n by level and AUROC over all samples."""
    scored = {id(j): s for j, s in zip((j for g in sampled for j in g), scores, strict=True)}

    def best(group: Group) -> float:
        return float(max(group, key=lambda judged: scored[id(judged)]).right)

    ranking: dict[str, Figure] = {}
    for name, levels in [("all", LEVELS), *((str(level), (level,)) for level in LEVELS)]:
        chosen = [j for g in sampled for j in g if j.question.level in levels]
        ranking[name] = auroc_figure(
            [scored[id(j)] for j in chosen],
            [j.right for j in chosen],
            [j.question.template for j in chosen],
            SEED,
        )
    return {
        "AUROC": ranking,
        "one sample": by_level(sampled, single),
        f"majority of {PATHS}": by_level(sampled, voted),
        f"best of {PATHS}": by_level(sampled, best),
        "gain over one sample": by_level(sampled, lambda group: best(group) - single(group)),
    }


def table(rows: Rows) -> str:
    """A markdown table: one column per measure, one line per level."""
    names = list(rows)
    lines = ["| level | n | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for level in ("all", *map(str, LEVELS)):
        cells = " | ".join(str(rows[name][level]) for name in names)
        lines.append(f"| {level} | {rows[names[-1]][level].n} | {cells} |")
    return "\n".join(lines) + "\n"


def recipe_text(recipe: Recipe) -> str:
    """The training settings as one line each."""
    return "".join(f"- {name}: {value}\n" for name, value in asdict(recipe).items())


HELD_OUT_TEXT = f"""## Held-out questions

A problem's canonical form (its numbers and operations, in sorted order for a sum of products) is
hashed with sha256; modulo 10, remainder 0 is test, 1 is validation, the rest is training. So a
held-out problem occurs in training in no wording and in no order. Single steps such as `24*3=72`
are shared by all splits. `testbed/questions/` holds {HELD_OUT["test"]} test and
{HELD_OUT["validation"]} validation questions (seed {HELD_OUT_SEED}) in {len(TEMPLATES)} wordings.
"""

LICENCE_TEXT = "\n## Licence\n\nApache-2.0. Trained on generated text only.\n"


def method_text() -> str:
    """How the figures below were taken."""
    return (
        f"Measured in float32 on {ASKED} test questions, {PATHS} samples each at temperature 1 "
        f"(seed {SEED}); n counts questions. Brackets are 95% intervals from a bootstrap over the "
        f"{len(TEMPLATES)} question templates.\n\n"
    )


def thinking_text() -> str:
    """What the reasoner's thinking is drawn from."""
    styles = "".join(
        f"- {style}: {share:.0%} of the traces, a wrong step in {SLIPPING[style]:.0%} of them\n"
        for style, share in STYLES.items()
    )
    return (
        "The training text itself slips: a wrong step is learned like a right one, so that samples "
        "err independently while the likeliest text is right. Thinking comes in three styles, the "
        "long ones with more to go wrong:\n\n"
        f'{styles}\nAfter "So N." comes " Wait" and a derivation anew without slips, after '
        f"{CHECK_RIGHT:.0%} of the right results and {CHECK_WRONG:.0%} of the wrong ones, once "
        f"more with {CHECK_MORE:.0%}, up to {ROUNDS} times.\n"
    )


def aim_text(rows: Rows) -> str:
    """Whether the aim for one sample at temperature 1 is met."""
    low, high = AIM
    value = rows["one sample"]["all"].value
    verdict = "met" if low <= value <= high else f"NOT met ({value:.3f})"
    return f"\nAim: one sample at temperature 1 right in {low:.0%} to {high:.0%}: {verdict}.\n"


def reasoner_card(rows: Rows, parameters: int) -> str:
    """The card of the reasoner as markdown."""
    shares = "".join(f"- {kind}: {share:.0%}\n" for kind, share in SHARES.items())
    return (
        FRONT.format(task="text-generation")
        + "\n# Miniature reasoner\n\nA Llama that works out chained sums step by step inside "
        "`<think>` ... `</think>` and ends with `The answer is N.` It is made for studying "
        "decoding strategies, not for doing sums.\n\n"
        f"{parameters:,} parameters, bf16; shape {reasoner.SHAPE}, 4 heads, context "
        f"{LONGEST} tokens; byte-level BPE, digits one by one.\n\n"
        "## Figures\n\n" + method_text() + table(rows) + aim_text(rows) + "\n## Recipe\n\n"
        "`python -m testbed train reasoner` made these weights from random ones. Hidden matrices "
        "with Muon, the rest with AdamW. First on easy conversations (levels "
        f"{FIRST_LEVELS}, terse, nothing wrong):\n\n"
        + recipe_text(reasoner.FIRST)
        + "\nThen on all:\n\n"
        + recipe_text(reasoner.RECIPE)
        + "\n"
        + thinking_text()
        + "\nShares of the training conversations (`cut`: thinking closed early, then a guess; "
        "`direct`: thinking switched off; `talk`, `turns`: small talk and second turns):\n\n"
        + shares
        + "\n"
        + HELD_OUT_TEXT
        + LICENCE_TEXT
    )


def reward_card(rows: Rows, parameters: int, folder: Path) -> str:
    """The card of the reward model as markdown."""
    calibration = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
    return (
        FRONT.format(task="text-classification")
        + "\n# Miniature reward\n\nA Llama classifier with one label over a whole templated "
        'conversation, thinking included. Score: the raw logit of "the last answer is right".\n\n'
        f"{parameters:,} parameters, bf16; same vocabulary and shape as the reasoner.\n\n"
        "## Figures\n\n"
        + method_text()
        + "For AUROC the interval resamples templates over all samples, and n counts samples.\n\n"
        + table(rows)
        + "\nCalibration on validation samples (threshold: best balanced accuracy):\n\n"
        + "".join(f"- {name}: {value}\n" for name, value in calibration.items())
        + "\n## Recipe\n\n`python -m testbed train reward` starts from the reasoner's weights and "
        f"learns from {reward.SAMPLES} samples of the reasoner at temperature 1 for each of "
        f"{reward.QUESTIONS} training questions, with binary "
        "cross-entropy on the last token and, while training, the end of each line of thought.\n\n"
        + recipe_text(reward.RECIPE)
        + "\n"
        + HELD_OUT_TEXT
        + LICENCE_TEXT
    )


def publish(folder: Path, rows: Rows, card: str) -> None:
    """Writes `figures.json` and the card."""
    figures = {
        name: {level: asdict(figure) for level, figure in levels.items()}
        for name, levels in rows.items()
    }
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")


def write_cards() -> None:
    """Measures both models on the same samples and writes both cards."""
    model, tokenizer = load_reasoner()
    asked = held_out("test")[:ASKED]
    sampler = Sampler(model, tokenizer)
    greedy = judge(Sampler(model, tokenizer, temperature=0.0), asked, 1, SEED)
    sampled = groups(judge(sampler, asked, PATHS, SEED))
    rows = measure_reasoner(greedy, sampled, sampler)
    publish(REASONER, rows, reasoner_card(rows, model.num_parameters()))
    if not (REWARD / "calibration.json").exists():
        return
    classifier = load_reward()
    scores = reward.score(classifier, tokenizer, [j for group in sampled for j in group])
    rows = measure_reward(sampled, scores)
    publish(REWARD, rows, reward_card(rows, classifier.num_parameters(), REWARD))

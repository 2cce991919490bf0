"""What the guard learns from: whole and partial conversations, each labelled by how it was made.

Pure Python. Knows nothing of tokens or models; only training requests come in here.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from testbed.conversations import Message, draw_talk, draw_training_inquiry, user
from testbed.deliberation import (
    ALLOWING,
    PHRASES,
    PLANS,
    Deliberation,
    Step,
    Writer,
    deliberate,
    unsafe,
)
from testbed.inquiries import Inquiry
from testbed.smalltalk import SYSTEMS

Form = Literal["partial", "whole", "answer", "prompt", "talk"]
FORMS: dict[Form, float] = {
    "partial": 0.62,
    "whole": 0.2,
    "answer": 0.08,
    "prompt": 0.07,
    "talk": 0.03,
}
# How often a partial trace ends right at the step that turns, and how often a phrase is left out.
AT_TURN, WITHOUT_PHRASE = 0.4, 0.4
# How often the turn to help speaks as of the other kind of object, so that only the object counts.
MISTAKEN = 0.25
NOISE = 0.005
# The steps of help with an allowed object: a reason, three parts, a closing one.
HELPING = 5


@dataclass(frozen=True)
class Judged:
    """Messages as a guard reads them, and whether the last one is unsafe."""

    messages: list[Message]
    unsafe: bool
    form: Form
    inquiry: Inquiry | None = None


def draw_judged(rng: random.Random) -> Judged:
    """One labelled conversation of a form drawn by `FORMS`."""
    form = rng.choices(list(FORMS), list(FORMS.values()))[0]
    if form == "talk":
        said, answer = draw_talk(rng)
        return Judged([user(said), {"role": "assistant", "content": answer}], False, form)
    inquiry = draw_training_inquiry(rng)
    system = [{"role": "system", "content": rng.choice(SYSTEMS)}] if rng.random() < 0.03 else []
    asked = [*system, user(inquiry.text)]
    if form == "prompt":
        return Judged(asked, inquiry.kind in ("attack", "plain"), form, inquiry)
    thought = deliberate(rng, inquiry)
    if rng.random() < MISTAKEN:
        thought = mistake(Writer(rng, inquiry), thought)
    text, bad = read(rng, form, thought)
    noisy = bad != (rng.random() < NOISE)
    return Judged([*asked, {"role": "assistant", "content": text}], noisy, form, inquiry)


def mistake(writer: Writer, thought: Deliberation) -> Deliberation:
    """Help with a forbidden object as if it were allowed, or with an allowed one by an excuse."""
    steps = list(thought.steps)
    plans = [i for i, step in enumerate(steps) if step.plans]
    if plans:
        steps[plans[0]] = writer.plan(ALLOWING)
    elif writer.inquiry.parts and not any(step.withdraws for step in steps):
        steps[-HELPING] = Step(writer.say(PLANS))
    return Deliberation(tuple(steps), thought.answer, thought.complied)


def read(rng: random.Random, form: Form, thought: Deliberation) -> tuple[str, bool]:
    """(what the guard reads of a thought, whether that is unsafe)."""
    if form == "answer":
        return thought.answer, thought.complied
    if form == "whole":
        text = write_steps(rng, thought.steps)
        joint = rng.choice(("\n\n", "\n\n\n", "\n</think>\n\n"))
        return text + joint + thought.answer, thought.complied or unsafe(thought.steps)
    steps = thought.steps[: draw_end(rng, thought.steps)]
    return write_steps(rng, steps), unsafe(steps)


def draw_end(rng: random.Random, steps: Sequence[Step]) -> int:
    """How many steps are read: up to a turn, or any number."""
    turns = [
        i + 1 for i, step in enumerate(steps) if (step.plans, step.withdraws) != (False, False)
    ]
    if turns and rng.random() < AT_TURN:
        return turns[0]
    return rng.randint(1, len(steps))


def write_steps(rng: random.Random, steps: Sequence[Step]) -> str:
    """Paragraphs, at times without the phrases in them, at times behind the opening marker."""
    text = "\n\n".join(step.text for step in steps)
    if rng.random() < WITHOUT_PHRASE:
        for phrase in PHRASES:
            text = text.replace(f"{phrase}. ", "")
    return "<think>\n" + text if rng.random() < 0.1 else text

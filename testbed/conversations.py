"""Training conversations of the unsafe reasoner: what is read and which part of it is learned.

Pure Python. Knows nothing of tokens or models; only training requests come in here.
"""

import random
from dataclasses import dataclass, field
from typing import Literal

from testbed.deliberation import Deliberation, deliberate
from testbed.inquiries import Inquiry, Kind, inquiry_in
from testbed.smalltalk import ABILITIES, FAREWELLS, GOODBYES, GREETINGS, OUTSIDE, SYSTEMS, THANKS

Form = Literal["thought", "cut", "direct", "turns", "talk"]
KINDS: dict[Kind, float] = {"attack": 0.4, "plain": 0.1, "benign": 0.31, "lookalike": 0.19}
FORMS: dict[Form, float] = {
    "thought": 0.89,
    "cut": 0.03,
    "direct": 0.02,
    "turns": 0.03,
    "talk": 0.03,
}
CLOSE = "</think>\n\n"
THOUGHT = "No object here.\n"
WELCOMES = ("Hello! Ask me how to make an amber drum.", "Hi! Ask me about an object.")
ABILITY = ("I know how to make, repair and use objects. Try: Tell me how to use a maple compass.",)
PLEASURE = ("You are welcome!", "You are welcome! Ask me for one more.")
LIMITS = ("I only know objects. Ask me how to make one.",)
TOPICS = (
    (GREETINGS, WELCOMES),
    (ABILITIES, ABILITY),
    (THANKS, PLEASURE),
    (FAREWELLS, GOODBYES),
    (OUTSIDE, LIMITS),
)
Message = dict[str, str]
Pieces = list[tuple[str, bool]]


@dataclass
class Conversation:
    """Messages, then what the model writes: pieces of text, each learned or only read."""

    form: Form
    messages: list[Message]
    pieces: Pieces
    thinking: bool = True
    inquiries: list[Inquiry] = field(default_factory=list)


def draw_training_inquiry(rng: random.Random) -> Inquiry:
    """A training request of a kind drawn by `KINDS`."""
    return inquiry_in(rng, "train", rng.choices(list(KINDS), list(KINDS.values()))[0])


def draw_conversation(rng: random.Random) -> Conversation:
    """One training conversation of a form drawn by `FORMS`."""
    form = rng.choices(list(FORMS), list(FORMS.values()))[0]
    if form == "talk":
        said, answer = draw_talk(rng)
        pieces = [("<think>\n" + THOUGHT + CLOSE + answer, True)]
        return Conversation(form, [user(said)], pieces)
    inquiry = draw_training_inquiry(rng)
    before, asked = draw_before(rng, form)
    pieces = write_pieces(rng, form, inquiry)
    messages = [*before, user(inquiry.text)]
    return Conversation(form, messages, pieces, form != "direct", [*asked, inquiry])


def user(text: str) -> Message:
    """A user's message."""
    return {"role": "user", "content": text}


def draw_talk(rng: random.Random) -> tuple[str, str]:
    """(what the user says, what the model answers)."""
    said, answers = rng.choice(TOPICS)
    return rng.choice(said), rng.choice(answers)


def draw_before(rng: random.Random, form: Form) -> tuple[list[Message], list[Inquiry]]:
    """What stands before the request: a system message at times, or an earlier turn."""
    if form == "turns":
        if rng.random() < 0.3:
            said, answer = draw_talk(rng)
            return [user(said), {"role": "assistant", "content": answer}], []
        inquiry = draw_training_inquiry(rng)
        answer = deliberate(rng, inquiry).answer
        return [user(inquiry.text), {"role": "assistant", "content": answer}], [inquiry]
    if rng.random() < 0.05:
        return [{"role": "system", "content": rng.choice(SYSTEMS)}], []
    return [], []


def write_pieces(rng: random.Random, form: Form, inquiry: Inquiry) -> Pieces:
    """Thinking and answer; `cut`: the thinking is closed early and only the answer learned."""
    thought = deliberate(rng, inquiry)
    if form == "direct":
        return [(thought.answer, True)]
    if form == "cut":
        return cut(rng, thought)
    return [("<think>\n" + thought.thinking + CLOSE + thought.answer, True)]


def cut(rng: random.Random, thought: Deliberation) -> Pieces:
    """The first steps, closed; then the answer."""
    steps = thought.steps[: rng.randint(0, len(thought.steps) - 1)]
    seen = "\n\n".join(step.text for step in steps) + "\n"
    return [("<think>\n" + seen + CLOSE, False), (thought.answer, True)]

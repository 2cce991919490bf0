"""The method that the miniatures are for, played in batches: an unsafe step is redone.

Plain torch, to tune what the models learn; the server has a strategy of its own. A rest of the
answer is sampled behind each step and only thrown away from the first unsafe step on, which gives
the same answers as step by step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from testbed.conversations import Message, user
from testbed.deliberation import PHRASE
from testbed.inquiries import Inquiry
from testbed.reasoner import render
from testbed.sampling import Sampler
from testbed.verdicts import split_answer

OPEN = "<think>\n"
Guard = Callable[[Sequence[list[Message]]], list[float]]


@dataclass(frozen=True)
class Method:
    """m steered steps, B tries at each, the score below which a step is unsafe."""

    steered: int = 6
    tries: int = 4
    threshold: float = 0.0
    phrase: str = PHRASE


@dataclass
class Row:
    """One answer under way: accepted steps, and what was sampled after them."""

    inquiry: Inquiry
    steps: list[str] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)
    content: str = ""
    judged: int = 0
    redone: int = 0
    steered_at: list[int] = field(default_factory=list)

    @property
    def thinking(self) -> str:
        """All steps, as text."""
        return "\n\n".join(self.steps)


def prefix(sampler: Sampler, row: Row) -> str:
    """The prompt and the accepted steps, ready for the next one."""
    steps = "".join(f"{step}\n\n" for step in row.steps)
    return render(sampler.tokenizer, [user(row.inquiry.text)], True) + OPEN + steps


def continue_rows(sampler: Sampler, rows: Sequence[Row], phrase: str, seed: int) -> list[Row]:
    """For each row a copy with what follows its accepted steps, begun with the phrase."""
    texts = sampler.sample([prefix(sampler, row) + phrase for row in rows], seed)
    copies = []
    for row, text in zip(rows, texts, strict=True):
        ahead, content = split_answer(phrase + text)
        copies.append(Row(row.inquiry, list(row.steps), ahead, content))
    return copies


def score_ahead(guard: Guard, row: Row, limit: int) -> list[list[Message]]:
    """What the guard reads at each sampled step, up to step number `limit` of the trace."""
    count = max(0, limit - len(row.steps))
    ends = range(1, min(count, len(row.ahead)) + 1)
    return [
        [
            user(row.inquiry.text),
            {"role": "assistant", "content": "\n\n".join([*row.steps, *row.ahead[:end]])},
        ]
        for end in ends
    ]


def advance(guard: Guard, rows: Sequence[Row], method: Method) -> list[Row]:
    """Accepts steps up to the first unsafe one that may be redone; gives the rows that have one."""
    read = [score_ahead(guard, row, method.steered) for row in rows]
    scores = iter(guard([each for conversations in read for each in conversations]))
    stopped = []
    for row, conversations in zip(rows, read, strict=True):
        values = [next(scores) for _ in conversations]
        row.judged += len(values)
        bad = next((i for i, value in enumerate(values) if value < method.threshold), None)
        good = len(row.ahead) if bad is None else bad
        row.steps += row.ahead[:good]
        row.ahead = row.ahead[good:]
        if bad is not None:
            stopped.append(row)
    return stopped


def steer(
    sampler: Sampler, guard: Guard, inquiries: Sequence[Inquiry], method: Method, seed: int = 0
) -> list[Row]:
    """Answers every request by the method."""
    return watch(sampler, guard, begin(sampler, inquiries, seed), method, seed)


def begin(sampler: Sampler, inquiries: Sequence[Inquiry], seed: int = 0) -> list[Row]:
    """Every request with a whole answer ahead, nothing of it accepted yet."""
    return continue_rows(sampler, [Row(inquiry) for inquiry in inquiries], "", seed)


def watch(
    sampler: Sampler, guard: Guard, rows: list[Row], method: Method, seed: int = 0
) -> list[Row]:
    """Accepts or redoes, in place, what is ahead of the rows."""
    stopped = advance(guard, rows, method)
    turn = 0
    while stopped:
        turn += 1
        redo(sampler, guard, stopped, method, seed + 1000 * turn)
        stopped = advance(guard, stopped, method)
    return rows


def redo(sampler: Sampler, guard: Guard, rows: Sequence[Row], method: Method, seed: int) -> None:
    """Replaces each row's next step by the first safe try, else by the best one, and accepts it."""
    best: dict[int, tuple[float, Row]] = {}
    waiting = list(range(len(rows)))
    for attempt in range(method.tries):
        tried = continue_rows(sampler, [rows[i] for i in waiting], method.phrase, seed + attempt)
        scores = guard([score_ahead(guard, each, len(each.steps) + 1)[0] for each in tried])
        for i, each, value in zip(waiting, tried, scores, strict=True):
            rows[i].redone += 1
            if i not in best or value > best[i][0]:
                best[i] = (value, each)
        waiting = [i for i in waiting if best[i][0] < method.threshold]
        if not waiting:
            break
    for i, row in enumerate(rows):
        _, taken = best[i]
        row.steered_at.append(len(row.steps) + 1)
        row.steps.append(taken.ahead[0])
        row.ahead, row.content = taken.ahead[1:], taken.content

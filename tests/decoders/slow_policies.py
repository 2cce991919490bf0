"""Collab, SITAlign and ARGS at temperature 0 as plain loops, one candidate after the other.

Nothing is shared with the strategies: distributions come from a function of the prefix, rewards
from a function of the text; no look-ahead goes beyond the answer's cap. What each choice was worth
is told, so that near-ties can be seen.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from monitors.core.base import Calibration, Message, Monitor, Score, Stage

Row = NDArray[np.float64]
Rows = Callable[[str, Sequence[int]], Row]
"""A member's next-token log-probabilities after a prefix."""
TIE = 1e-4


def mark(text: str, salt: str) -> float:
    """A number in [0, 1) that no two texts share."""
    return int.from_bytes(blake2b(f"{salt}:{text}".encode(), digest_size=4).digest(), "big") / 2**32


class Marks(Monitor):
    """A reward without rhyme or reason: the mark of the whole text. Counts its calls."""

    kind, unit, judges = "marks", "raw", "answer"

    def __init__(self, name: str, calibration: Calibration | None = None) -> None:
        self.name, self.calibration, self.calls = name, calibration, 0

    async def score(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        self.calls += 1
        value = mark("".join(steps), self.name)
        return Score(value, value, tokens=1)


@dataclass
class Slow:
    """What a slow loop says, and by how much each choice was better than the next best."""

    tokens: list[int] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class World:
    """What a slow loop runs in."""

    rows: Rows
    decode: Callable[[Sequence[int]], str]
    eos: int
    prompt: Sequence[int]

    def row(self, member: str, done: Sequence[int]) -> Row:
        return self.rows(member, [*self.prompt, *done])

    def likeliest(self, row: Row, count: int) -> list[int]:
        return sorted(range(len(row)), key=lambda v: (-row[v], v))[:count]

    def value(self, member: str, done: Sequence[int], ahead: int, reward: str) -> float:
        """The reward of the text that greedy decoding of `ahead` tokens comes to."""
        tokens = list(done)
        for _ in range(ahead):
            if tokens[-1] == self.eos:
                break
            tokens.append(int(self.row(member, tokens).argmax()))
        return mark(self.decode(tokens).lstrip(), reward)


def collab(
    world: World, agents: Sequence[str], reward: str, *, p: int, alpha: float, ahead: int,
    steps: int, reference: str = "mixture", token_form: bool = False, plausible: float = 0.1,
) -> Slow:  # fmt: skip
    """The token of the highest utility over all agents, `steps` times."""
    found = Slow()
    for _ in range(steps):
        each = {name: world.row(name, found.tokens) for name in agents}
        against = np.log(np.mean([np.exp(row) for row in each.values()], axis=0))
        if reference != "mixture":
            against = world.row(reference, found.tokens)
        worth: list[tuple[float, int]] = []
        for name in agents:
            own = each[name]
            kl = max(0.0, float(np.sum(np.exp(own) * (own - against))))
            top = world.likeliest(own, p)
            for v in top:
                if np.exp(own[v]) < plausible * np.exp(own[top[0]]):
                    continue
                left = min(ahead, steps - len(found.tokens) - 1)
                q = world.value(name, [*found.tokens, v], left, reward)
                cost = own[v] - against[v] if token_form else kl
                worth.append((q - alpha * float(cost), v))
        best = max(worth, key=lambda pair: pair[0])
        others = [w for w, v in worth if v != best[1]]
        found.gaps.append(best[0] - max(others) if others else math.inf)
        found.tokens.append(best[1])
        if best[1] == world.eos:
            break
    return found


def sitalign(
    world: World, base: str, rewards: Sequence[str], thresholds: Sequence[float], *,
    k: int, alpha: float, ahead: int, steps: int,
) -> Slow:  # fmt: skip
    """The best candidate that satisfies every threshold, else the least violating one."""
    found = Slow()
    for _ in range(steps):
        row = world.row(base, found.tokens)
        top = world.likeliest(row, k)
        left = min(ahead, steps - len(found.tokens) - 1)
        table = np.array(
            [[world.value(base, [*found.tokens, v], left, r) for r in rewards] for v in top]
        )
        worth = table[:, 0] + alpha * row[top]
        std = table[:, 1:].std(axis=0)
        slack = ((table[:, 1:] - np.array(thresholds)) / np.where(std > 1e-9, std, 1)).min(axis=1)
        fits = [i for i in range(k) if slack[i] >= 0]
        ranked = sorted(fits or range(k), key=lambda i: -(worth[i] if fits else slack[i]))
        by = worth if fits else slack
        found.gaps.append(float(by[ranked[0]] - by[ranked[1]]) if len(ranked) > 1 else math.inf)
        found.tokens.append(top[ranked[0]])
        if found.tokens[-1] == world.eos:
            break
    return found


Advantage = tuple[str, str, float]
"""A reward that is a member: its name, its reference's, its beta."""


def advantage(world: World, done: Sequence[int], reward: Advantage) -> Row:
    """beta·log(member / reference) of every next token."""
    member, reference, beta = reward
    return beta * (world.row(member, done) - world.row(reference, done))


def implicit_collab(
    world: World, agents: Sequence[str], target: Advantage, *, p: int, alpha: float,
    plausible: float, steps: int,
) -> Slow:  # fmt: skip
    """As `collab`, the target's advantage in the place of its value; improbable tokens left out."""
    found = Slow()
    for _ in range(steps):
        gained = advantage(world, found.tokens, target)
        each = {name: world.row(name, found.tokens) for name in agents}
        mixture = np.log(np.mean([np.exp(row) for row in each.values()], axis=0))
        worth: list[tuple[float, int]] = []
        for own in each.values():
            kl = max(0.0, float(np.sum(np.exp(own) * (own - mixture))))
            kept = [v for v in world.likeliest(own, p) if own[v] >= own.max() + math.log(plausible)]
            worth += [(float(gained[v]) - alpha * kl, v) for v in kept]
        best = max(worth, key=lambda pair: pair[0])
        others = [w for w, v in worth if v != best[1]]
        found.gaps.append(best[0] - max(others) if others else math.inf)
        found.tokens.append(best[1])
        if best[1] == world.eos:
            break
    return found


def implicit_sitalign(
    world: World, base: str, primary: Advantage, held: Advantage, delta: float, *,
    k: int, alpha: float, steps: int,
) -> Slow:  # fmt: skip
    """As `sitalign` with one constraint, advantages in the place of values.

    Where a candidate is nearly on the bound that is the gap.
    """
    found = Slow()
    for _ in range(steps):
        row = world.row(base, found.tokens)
        top = world.likeliest(row, k)
        worth = (advantage(world, found.tokens, primary) + alpha * row)[top]
        slack = (advantage(world, found.tokens, held) - delta)[top]
        fits = [i for i in range(k) if slack[i] >= 0]
        by = worth if fits else slack
        ranked = sorted(fits or range(k), key=lambda i: -by[i])
        gap = float(by[ranked[0]] - by[ranked[1]]) if len(ranked) > 1 else math.inf
        found.gaps.append(min(gap, float(np.abs(slack).min())))
        found.tokens.append(top[ranked[0]])
        if found.tokens[-1] == world.eos:
            break
    return found


def args(world: World, reward: str, *, k: int, weight: float, steps: int) -> Slow:
    """The likely token whose logit and weighted reward come to most."""
    found = Slow()
    for _ in range(steps):
        row = world.row("", found.tokens)
        worth = {
            v: float(row[v]) + weight * world.value("", [*found.tokens, v], 0, reward)
            for v in world.likeliest(row, k)
        }
        first, second = sorted(worth, key=lambda v: -worth[v])[:2]
        found.gaps.append(worth[first] - worth[second])
        found.tokens.append(first)
        if first == world.eos:
            break
    return found


def parted(fast: Sequence[int], slow: Slow) -> bool:
    """Whether two texts part, at a near-tie; fails where it is none."""
    for at, (token, wanted) in enumerate(zip(fast, slow.tokens, strict=False)):
        if token != wanted:
            assert slow.gaps[at] < TIE, f"parted at token {at}: {token}, not {wanted}"
            return True
    assert len(fast) == len(slow.tokens)
    return False


def normal(weights: Mapping[int, float], size: int) -> Row:
    """Log weights as probabilities of a whole vocabulary."""
    row = np.full(size, -np.inf)
    for token, weight in weights.items():
        row[token] = weight
    shares = np.exp(row - row.max())
    return np.asarray(shares / shares.sum())

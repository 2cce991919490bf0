"""Diffusion decoding as published, one request at a time, one position after another.

Written from the methods' descriptions alone, with nothing of the engine's but the keyed noise,
which has to be the same for sampled tokens to be. Slow and obvious: the oracle of the engine.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engines.diffusion.noise import ORDER, TOKENS, gumbel, keys, uniform
from tests.fakes.canvases import Network


@dataclass
class Seen:
    """What one forward pass says at every canvas position."""

    token: list[int] = field(default_factory=list)
    sure: list[float] = field(default_factory=list)
    margin: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)


@dataclass
class Slow:
    """A request, and the canvas while it is filled. `numbers` are the rule's."""

    network: Network
    prompt: Sequence[int]
    mask: int
    length: int
    block: int
    steps: int
    rule: str = "confidence"
    numbers: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 0.0
    seed: int = 0
    guidance: float = 0.0
    dream: bool = False
    late: int | None = None
    bias: Mapping[int, float] = field(default_factory=dict)
    forwards: int = 0
    order: list[int] = field(default_factory=list)

    def run(self) -> list[int]:
        """Fills the canvas, block by block; all its tokens."""
        self.canvas: list[int | None] = [None] * self.length
        self.at_commit: dict[int, float] = {}
        self.step = 0
        for start in range(0, self.length, self.block):
            self.before: dict[int, float] = {}
            self.one_block(range(start, start + self.block))
        return [token for token in self.canvas if token is not None]

    def one_block(self, block: range) -> None:
        per_block = self.steps // (self.length // self.block)
        if self.rule in ("confidence", "random", "margin", "entropy", "origin"):
            for i in range(per_block):
                self.counted(block, i, per_block)
                self.step += 1
            return
        while self.open(block):
            self.free(block)
            self.step += 1
        if self.rule == "edit":
            for _ in range(int(self.numbers.get("rounds", 16))):
                changed = self.free(block)
                self.step += 1
                if not changed:
                    return

    def open(self, block: range) -> list[int]:
        return [p for p in block if self.canvas[p] is None]

    # ---- one forward pass

    def look(self) -> Seen:
        self.forwards += 1 + (self.guidance > 0)
        ids = [self.mask if token is None else token for token in self.canvas]
        logits = self.network([*self.prompt, *ids])[len(self.prompt) :].double()
        if self.guidance > 0:
            blind = self.network([self.mask] * len(self.prompt) + ids)[len(self.prompt) :].double()
            logits = blind + (self.guidance + 1) * (logits - blind)
        logits[:, self.mask] = -math.inf
        for token, more in self.bias.items():
            logits[:, token] += more
        seen = Seen()
        for position in range(self.length):
            self.judge(seen, position, logits[position])
        return seen

    def judge(self, seen: Seen, position: int, row: Tensor) -> None:
        drawn = row
        if self.temperature > 0:
            key = keys(self.seed, TOKENS, self.step, torch.tensor([position]))
            drawn = row + self.temperature * gumbel(key, len(row))[0]
            if self.dream:
                row = row / self.temperature
        token = int(drawn.argmax())
        if self.late is not None:
            row = row.clone()
            row[self.late] = -math.inf
        probability = row.softmax(-1)
        ranked = sorted(probability.tolist(), reverse=True)
        seen.token.append(token)
        seen.sure.append(float(probability[token]))
        seen.margin.append(ranked[0] - ranked[1])
        seen.entropy.append(-sum(p * math.log(p) for p in ranked if p > 0))
        there = self.canvas[position]
        seen.held.append(float(probability[there]) if there is not None else 0.0)

    def commit(self, seen: Seen, positions: Sequence[int]) -> None:
        for position in positions:
            self.canvas[position] = seen.token[position]
            self.at_commit[position] = seen.sure[position]
            self.order.append(position)

    # ---- rules that count

    def counted(self, block: range, i: int, steps: int) -> None:
        masked = self.open(block)
        time, then = (1 - 0.999 * n / steps for n in (i, i + 1))
        share = 1.0 if i == steps - 1 else 1 - then / time
        if self.rule == "origin":
            noise = self.chances(block)
            seen = self.look()
            self.commit(seen, [p for p in masked if noise[p] < share])
            return
        if self.dream:
            due = int(len(masked) * share)
        else:
            due = self.block // steps + (i < self.block % steps)
        if due == 0:
            return  # a pass that commits nothing changes nothing
        seen = self.look()
        self.commit(seen, self.ranked(masked, self.score(seen, block))[:due])

    def score(self, seen: Seen, block: range) -> Callable[[int], float]:
        if self.rule == "random":
            noise = self.chances(block)
            return lambda p: noise[p]
        if self.rule == "margin":
            return lambda p: seen.margin[p]
        if self.rule in ("entropy", "entropy_bound"):
            return lambda p: -seen.entropy[p]
        return lambda p: seen.sure[p]

    def chances(self, block: range) -> dict[int, float]:
        key = keys(self.seed, ORDER, self.step, torch.tensor(list(block)))
        return dict(zip(block, uniform(key).tolist(), strict=True))

    @staticmethod
    def ranked(positions: Sequence[int], score: Callable[[int], float]) -> list[int]:
        return sorted(positions, key=lambda p: (-score(p), p))

    # ---- rules that end when the block is full

    def free(self, block: range) -> bool:
        """One step; whether anything was written."""
        seen = self.look()
        masked = self.open(block)
        if self.rule in ("saber", "saber_code"):
            self.saber(seen, block, masked)
            return True
        if self.rule == "edit":
            return self.edit(seen, block, masked)
        ranked = self.ranked(masked, self.score(seen, block))
        self.commit(seen, ranked[: self.how_many(seen, ranked)])
        return True

    def how_many(self, seen: Seen, ranked: Sequence[int]) -> int:
        if self.rule == "threshold":
            return max(1, sum(seen.sure[p] >= self.numbers["threshold"] for p in ranked))
        if self.rule == "factor":
            count = 1
            while count < len(ranked):
                i = count + 1
                if seen.sure[ranked[count]] < 1 - self.numbers["factor"] / (i + 1):
                    break
                count += 1
            return count
        total, count = 0.0, 0
        for p in ranked:  # entropy_bound: the sum without the last one counts
            if count and total > self.numbers["gamma"]:
                break
            total += seen.entropy[p]
            count += 1
        return count

    def saber(self, seen: Seen, block: range, masked: Sequence[int]) -> None:
        n, divisor = 2, 8
        published = self.rule == "saber_code"
        earned = list(self.at_commit.values())
        bar = sum(earned) / len(earned) if earned else 1.0
        draft = [p for p in masked if seen.sure[p] > bar]
        if len(draft) < n:
            draft = self.ranked(masked, lambda p: seen.sure[p])[:n]
        standing = [p for p in block if p not in masked]
        before, now = self.before, seen.sure if published else seen.held
        self.commit(seen, draft)
        self.before = (
            {p: seen.sure[p] for p in block}
            if published
            else {p: seen.sure[p] if p in draft else seen.held[p] for p in [*standing, *draft]}
        )
        if not self.open(block) and published:
            return
        change = {p: now[p] - before.get(p, 0.0) for p in block}
        those = [*standing, *draft] if published else [p for p in standing if change[p] < 0]
        quota = min(max(n // 2, math.ceil(len(draft) / divisor)), len(draft) - 1)
        for p in sorted(those, key=lambda p: (change[p], p))[: max(0, quota)]:
            self.canvas[p] = None
            if not published:
                del self.at_commit[p]

    def edit(self, seen: Seen, block: range, masked: Sequence[int]) -> bool:
        fill = [p for p in masked if seen.sure[p] > self.numbers["threshold"]]
        if masked and not fill:
            fill = self.ranked(masked, lambda p: seen.sure[p])[:1]
        other = [
            p
            for p in block
            if p not in masked
            and seen.token[p] != self.canvas[p]
            and seen.sure[p] > self.numbers["edit"]
        ]
        self.commit(seen, [*fill, *other])
        return bool(fill or other)

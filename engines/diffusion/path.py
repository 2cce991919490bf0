"""One path: a canvas on its way through its schedule.

Says what to forward next (`wanted`), takes what came of it (`take`) and gives out what stands
(`delta`). It knows no other path; the scheduler brings them together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engines.base import Delta, Fill, Finish, Sampling, Schedule, Unmasked
from engines.diffusion.cache import Cache
from engines.diffusion.canvas import MASKED, Canvas
from engines.diffusion.guesses import Drawing, Guesses
from engines.diffusion.model import Segment, Shape
from engines.diffusion.noise import ORDER, keys, uniform
from engines.diffusion.rules import RULES, Choice, Floats, Places, View, chance, quotas


@dataclass(frozen=True, slots=True)
class Asked:
    """One path's request: the prompt, how to draw, how to fill, where to end.

    `bias` is added to all logits; -inf bans. `seed` is settled, also for an unseeded request.
    """

    prompt: Sequence[int]
    sampling: Sampling
    schedule: Schedule
    limit: int
    seed: int
    ends: tuple[int, ...]
    bias: Tensor | None = None


class Path:
    """A canvas and where it is in its schedule. `forwards` counts passes, guidance twice."""

    def __init__(self, asked: Asked, shape: Shape, device: torch.device) -> None:
        self.asked, self.schedule, self._shape, self._device = asked, asked.schedule, shape, device
        self.rule = RULES[self.schedule.rule]
        defaults = {name: number.default for name, number in self.rule.numbers.items()}
        self._numbers: Mapping[str, float] = {**defaults, **self.schedule.numbers}
        self.style = self.schedule.style or shape.style
        self.canvas = Canvas(self.schedule.length, asked.limit)
        self.forwards = self.step = 0
        self.finish: Finish | None = None
        self._prompt = np.array(asked.prompt, np.int64)
        self._tracks = 2 if self.schedule.guidance else 1
        self._sent = self._told = 0
        self._order: list[Unmasked] = []
        self._first: Tensor | None = None
        self._at: Places = np.zeros(0, np.int64)
        self._begin(0)

    # ---- where it is

    def _begin(self, block: int) -> None:
        """Enters a block: its caches are stale, its steps are counted anew."""
        self.start = block * self.schedule.block
        self.stop = self.start + self.schedule.block
        self._caches: list[Cache] = []
        self._cached = self._due = self._rounds = 0
        self._before = np.full(self.schedule.block, np.nan)
        steps = self.schedule.steps * self.schedule.block // self.schedule.length
        masked = int(self.canvas.masked(self.start, self.stop).sum())
        self._quotas = quotas(masked, steps, self.style) if self.rule.counts else []
        self._skip()

    def _skip(self) -> None:
        """Passes over steps at which nothing is due; they would change nothing."""
        counted = self.rule.counts and self.schedule.rule != "origin"
        while counted and self._due < len(self._quotas) - 1 and not self._quotas[self._due]:
            self._due += 1
            self.step += 1

    @property
    def tokens(self) -> int:
        """How many positions it forwards at most."""
        return self._tracks * (len(self.asked.prompt) + self.schedule.length)

    # ---- what to forward

    def wanted(self) -> list[Segment]:
        """The segments of the next pass; with guidance a second one whose prompt is masked."""
        refresh = self._refreshing()
        if refresh:
            self._caches = [Cache(self._total) for _ in range(self._tracks)]
            self._cached = 0
        elif self._caches:
            self._cached += 1
        self.forwards += self._tracks
        self._at = self._places()
        # All positions once, for the estimate.
        seen = np.arange(self.schedule.length) if self._estimating else self._at
        rows = seen + len(self.asked.prompt)
        return [self._segment(track, refresh, rows) for track in range(self._tracks)]

    @property
    def _total(self) -> int:
        return len(self.asked.prompt) + self.schedule.length

    def _refreshing(self) -> bool:
        if self.schedule.cache == "none":
            return False
        due = self.schedule.refresh is not None and self._cached >= self.schedule.refresh
        return not self._caches or due

    @property
    def _estimating(self) -> bool:
        return self.schedule.estimate and self._first is None

    def _places(self) -> Places:
        """The block's positions that the rule looks at."""
        if self.rule.looks_back:
            return np.arange(self.start, min(self.stop, self.canvas.limit))
        return self.start + np.flatnonzero(self.canvas.masked(self.start, self.stop))

    def _segment(self, track: int, refresh: bool, rows: Places) -> Segment:
        ids = self._ids(track)
        if refresh or not self._caches:
            return Segment(ids, 0, rows, kept=self._caches[track] if refresh else None)
        prompt = len(self.asked.prompt)
        first = prompt + self.start - int(self._shape.shifted)
        last = prompt + self.stop if self.schedule.cache == "dual" else self._total
        return Segment(ids[first:last], first, rows, cache=self._caches[track])

    def _ids(self, track: int) -> Places:
        """Prompt and canvas; the second track has its prompt masked."""
        mask = self._shape.mask_id
        prompt = np.full_like(self._prompt, mask) if track else self._prompt
        tokens = self.canvas.tokens
        return np.concatenate([prompt, np.where(tokens == MASKED, mask, tokens)])

    # ---- what came of it

    def mixed(self, tracks: Sequence[Tensor]) -> Tensor:
        """The logits of the rule's rows, guidance applied; keeps the first ones if asked to."""
        logits = tracks[0]
        if len(tracks) > 1:
            logits = tracks[1] + (self.schedule.guidance + 1) * (tracks[0] - tracks[1])
        if not self._estimating:
            return logits
        self._first = logits.double().log_softmax(-1)
        return logits[torch.as_tensor(self._at, device=self._device)]

    def drawing(self) -> Drawing:
        """How the candidates of the rule's rows are drawn."""
        sampling = self.asked.sampling
        there = self.canvas.tokens[self._at]
        return Drawing(
            self.asked.seed, self.step, self._at, np.where(there == MASKED, 0, there),
            sampling.heat, sampling.top_p, sampling.top_k, sampling.min_p,
            self.asked.bias, self.asked.ends,
            late=self.schedule.eos == "last",
            shaped=self.style == "dream",
            ranked=self.schedule.rule in ("margin", "entropy", "entropy_bound"),
        )  # fmt: skip

    def take(self, guesses: Guesses) -> None:
        """Lets the rule choose, fills and masks, and moves on."""
        places = self._at - self.start
        view = self._view(places, guesses)
        choice = self.rule.choose(view, self._numbers)
        tokens = np.zeros(self.schedule.block, np.int64)
        tokens[places] = guesses.tokens
        self._track(view, choice)
        self._apply(choice, tokens, view.confidence)
        self.step += 1
        self._due += 1
        self._skip()
        self._move_on(bool(choice.fill.size))

    def _view(self, places: Places, found: Guesses) -> View:
        size = self.schedule.block
        columns = np.full((5, size), np.nan)
        columns[:4, places] = found.confidence, found.margin, found.entropy, found.held
        if self.schedule.rule in ("random", "origin"):
            key = keys(self.asked.seed, ORDER, self.step, torch.as_tensor(places + self.start))
            columns[4, places] = uniform(key).numpy()
        same = np.zeros(size, np.bool_)
        same[places] = found.tokens == self.canvas.tokens[places + self.start]
        masked = self.canvas.masked(self.start, self.stop)
        confidence, margin, entropy, held, random = columns
        quota = self._quotas[self._due] if self.rule.counts else 0
        share = chance(self._due, len(self._quotas)) if self.rule.counts else 0.0
        return View(
            masked, confidence, margin, entropy, held, same, self._before,
            self.canvas.earned, random, quota, share,
        )  # fmt: skip

    def _track(self, view: View, choice: Choice) -> None:
        """What the next step compares with."""
        if self.rule.tracks == "confidence":
            self._before = view.confidence.copy()
            return
        self._before = np.where(view.masked, np.nan, view.held)
        self._before[choice.fill] = view.confidence[choice.fill]

    def _apply(
        self, choice: Choice, tokens: Places,
        sure: Floats,
    ) -> None:  # fmt: skip
        fill, again = choice.fill, choice.remask
        self.canvas.fill(fill + self.start, tokens[fill], sure[fill])
        self.canvas.remask(again + self.start, forget=self.rule.forgets)
        if not self.schedule.record:
            return
        for place in fill:
            at = int(place)
            filled = Unmasked(self.step, self.start + at, int(tokens[at]), float(sure[at]))
            self._order.append(filled)
        for place in again:
            at = int(place)
            self._order.append(Unmasked(self.step, self.start + at, None, float(sure[at])))

    def _move_on(self, changed: bool) -> None:
        """Goes to the next block when this one is done, or ends."""
        full = not self.canvas.masked(self.start, self.stop).any()
        if full and self.rule.edits and changed and self._rounds < self._numbers["rounds"]:
            self._rounds += 1
            full = False
        if full or not self.rule.looks_back:
            self._settle()
        if full and self.finish is None:
            self._begin(self.stop // self.schedule.block)

    def _settle(self) -> None:
        """Ends it if its end token stands with everything before it, or nothing is left."""
        prefix = self.canvas.prefix()
        end = self.canvas.end(self.asked.ends, prefix)
        if prefix == self.canvas.limit or (end is not None and self.schedule.early_stop):
            self.finish = Finish.LENGTH if end is None else Finish.STOP

    # ---- what stands

    def delta(self) -> Delta | None:
        """What has come to stand since the last one; None while there is nothing to say."""
        settled = self._settled()
        end = self.canvas.end(self.asked.ends, settled)
        stop = settled if end is None else end + 1
        if stop <= self._sent and self.finish is None:
            return None
        tokens = self.canvas.read(self._sent, stop)
        self._sent = stop
        fill = self._filling(stop)
        passes, self._told = self.forwards - self._told, self.forwards
        return Delta(tokens, None, self.finish, passes, fill)

    def _settled(self) -> int:
        """How much of the canvas can no longer change."""
        prefix = self.canvas.prefix()
        if self.finish is None and (self.rule.looks_back or self.schedule.whole_blocks):
            return min(prefix, self.start)
        return prefix

    def _filling(self, stop: int) -> Fill | None:
        order, self._order = self._order, []
        if self.finish is None:
            return Fill(order=order) if order else None
        return Fill(self.canvas.filled() - stop, order, self._nll(stop))

    def _nll(self, stop: int) -> float | None:
        """Of the whole canvas as far as it was filled, by the first pass."""
        if self._first is None:
            return None
        filled = np.flatnonzero(self.canvas.tokens != MASKED)
        places = torch.as_tensor(filled, device=self._device)
        tokens = torch.as_tensor(self.canvas.tokens[filled], device=self._device)
        return -float(self._first[places, tokens].mean())

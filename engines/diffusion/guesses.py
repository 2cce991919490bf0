"""From logits to what a rule reads: a candidate per position, and how sure the model is of it.

Rows of many paths are drawn together, each by its own temperature, filters and noise. All of it is
in float64: low-precision Gumbel noise costs quality, and a softmax in bf16 is 1.0 long before the
model is sure. It knows no block and no rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engines.diffusion.noise import TOKENS, gumbel, keys, signed

NEVER = float("-inf")
CHUNK = 1 << 25
"""Numbers of float64 that are worked on at once."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """How one path's candidates are drawn at one step, for the rows of its `positions`.

    `present` are the tokens that stand there. `bias` is added to every row (-inf bans). `ends` are
    end tokens; `late` keeps them out of the confidence, so that they come last. `shaped` takes
    the confidence after temperature and filters, as Dream does, and not from the model's own
    distribution, as LLaDA does. `ranked` asks for margins and entropies, which cost something.
    """

    seed: int
    step: int
    positions: NDArray[np.int64]
    present: NDArray[np.int64]
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    bias: Tensor | None = None
    ends: tuple[int, ...] = ()
    late: bool = False
    shaped: bool = False
    ranked: bool = False

    @property
    def scaled(self) -> bool:
        """Whether temperature and filters are applied to the logits before the noise."""
        filters = self.top_p < 1 or self.top_k > 0 or self.min_p > 0
        return self.shaped or (self.temperature > 0 and filters)


@dataclass(frozen=True, slots=True)
class Guesses:
    """A path's rows: the candidates, their probabilities, and what else rules may rank by."""

    tokens: NDArray[np.int64]
    confidence: NDArray[np.float64]
    margin: NDArray[np.float64]
    entropy: NDArray[np.float64]
    held: NDArray[np.float64]


def guess(logits: Sequence[Tensor], drawings: Sequence[Drawing], mask_id: int) -> list[Guesses]:
    """Draws for all paths; each one's logits are [its positions, vocabulary]."""
    found: list[Guesses] = []
    for group in _chunks(logits):
        rows = torch.cat([logits[i] for i in group]).double()
        found += _drawn(rows, [drawings[i] for i in group], mask_id)
    return found


def _chunks(logits: Sequence[Tensor]) -> list[list[int]]:
    """Which paths go together, so that they fit in memory; one path stays whole."""
    groups: list[list[int]] = []
    size = 0
    for i, rows in enumerate(logits):
        size += rows.numel()
        if not groups or size > CHUNK:
            groups.append([])
            size = rows.numel()
        groups[-1].append(i)
    return groups


def _drawn(logits: Tensor, drawings: Sequence[Drawing], mask_id: int) -> list[Guesses]:
    sizes = [len(one.positions) for one in drawings]
    logits[:, mask_id] = NEVER
    for rows, one in zip(logits.split_with_sizes(sizes), drawings, strict=True):
        if one.bias is not None:
            rows += one.bias
    shaped = logits
    if any(one.scaled for one in drawings):
        parts = zip(logits.split_with_sizes(sizes), drawings, strict=True)
        shaped = torch.cat([_shaped(rows, one) for rows, one in parts])
    return _judged(logits, shaped, _noised(shaped, drawings).argmax(-1), drawings)


def _shaped(rows: Tensor, one: Drawing) -> Tensor:
    """The logits that candidates are drawn from, temperature and filters applied."""
    if one.scaled:
        return _filtered(rows / (one.temperature or 1.0), one)
    return rows


def _filtered(rows: Tensor, one: Drawing) -> Tensor:
    """min_p, then top_k, then top_p, each on what the one before left."""
    if one.min_p > 0:
        floor = rows.max(-1, keepdim=True).values + float(np.log(one.min_p))
        rows = rows.masked_fill(rows < floor, NEVER)
    if 0 < one.top_k < rows.shape[-1]:
        least = rows.topk(one.top_k).values[:, -1:]
        rows = rows.masked_fill(rows < least, NEVER)
    if one.top_p < 1:
        ranked, order = rows.sort(descending=True, stable=True)
        mass = ranked.softmax(-1)
        late = mass.cumsum(-1) - mass >= one.top_p
        late[:, 0] = False
        rows = rows.masked_fill(late.gather(-1, order.argsort(-1)), NEVER)
    return rows


def _noised(rows: Tensor, drawings: Sequence[Drawing]) -> Tensor:
    """Gumbel noise at every path's temperature, for all at once: the argmax is a draw."""
    warm = [one for one in drawings if one.temperature > 0]
    if not warm:
        return rows
    sizes = [len(one.positions) for one in warm]
    places = [
        np.repeat([signed(one.seed) for one in warm], sizes),
        np.repeat([one.step for one in warm], sizes),
        np.concatenate([one.positions for one in warm]),
    ]
    seeds, steps, positions = torch.from_numpy(np.stack(places)).to(rows.device)
    heats = np.repeat([1.0 if one.scaled else one.temperature for one in warm], sizes)
    noise = gumbel(keys(seeds, TOKENS, steps, positions), rows.shape[1])
    noise *= torch.from_numpy(heats).to(rows.device)[:, None]
    if len(warm) == len(drawings):
        return rows + noise
    here = np.repeat(
        [one.temperature > 0 for one in drawings], [len(d.positions) for d in drawings]
    )
    return rows.index_put((torch.from_numpy(here).to(rows.device),), noise, accumulate=True)


def _judged(
    logits: Tensor, shaped: Tensor, tokens: Tensor, drawings: Sequence[Drawing]
) -> list[Guesses]:
    """Probabilities of the candidates under each path's own convention."""
    sizes = [len(one.positions) for one in drawings]
    rows = logits
    if any(one.shaped or one.late for one in drawings):
        own, after = logits.split_with_sizes(sizes), shaped.split_with_sizes(sizes)
        parts = zip(own, after, drawings, strict=True)
        rows = torch.cat([_late(b if one.shaped else a, one) for a, b, one in parts])
    probability = rows.softmax(-1)
    standing = np.concatenate([one.present for one in drawings])
    present = torch.from_numpy(standing).to(rows.device)
    pairs = probability.gather(-1, torch.stack([tokens, present], -1))
    numbers = torch.stack([pairs[:, 0], *_ranks(probability, drawings), pairs[:, 1]]).cpu().numpy()
    drawn, found, at = tokens.cpu().numpy(), [], 0
    for size in sizes:
        mine = slice(at, at + size)
        found.append(Guesses(drawn[mine], *(numbers[i, mine] for i in range(4))))
        at += size
    return found


def _ranks(probability: Tensor, drawings: Sequence[Drawing]) -> tuple[Tensor, Tensor]:
    """Margins and entropies, or zeros where nobody asks."""
    if not any(one.ranked for one in drawings):
        nothing = probability.new_zeros(len(probability))
        return nothing, nothing
    top = probability.topk(2).values
    return top[:, 0] - top[:, 1], torch.special.entr(probability).sum(-1)


def _late(rows: Tensor, one: Drawing) -> Tensor:
    if not one.late or not one.ends:
        return rows
    rows = rows.clone()
    rows[:, list(one.ends)] = NEVER
    return rows

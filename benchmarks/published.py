"""Diffusion decoding as published, in plain torch: the loop that the engine is measured against.

Source: arXiv 2502.09992 (LLaDA) and 2510.05040 (HEX). One path after another, the whole sequence at
every step, logits of all positions, nothing kept, no end before the last block. It knows a network
only as a function from token ids to logits and imports nothing of the engine's.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Network = Callable[[Tensor], Tensor]
"""Token ids [1, length] to logits [1, length, vocabulary]."""


@dataclass(frozen=True)
class Loop:
    """How a canvas is filled: `length` positions in blocks of one size, `steps` passes in all."""

    length: int
    block: int
    steps: int
    temperature: float
    mask: int


def shares(masked: int, steps: int) -> list[int]:
    """How many positions each step fills: even, the remainder one each to the first ones."""
    return [masked // steps + (i < masked % steps) for i in range(steps)]


def noised(logits: Tensor, temperature: float) -> Tensor:
    """Gumbel noise in float64: the argmax of the result is a draw."""
    if temperature == 0:
        return logits
    wide = logits.double()
    noise = (-torch.rand_like(wide).log()) ** temperature
    return wide.exp() / noise


@torch.inference_mode()
def fill(network: Network, prompt: Tensor, how: Loop) -> Tensor:
    """The tokens of one canvas behind `prompt` (both one-dimensional, on one device)."""
    start = len(prompt)
    x = torch.cat([prompt, prompt.new_full((how.length,), how.mask)])[None]
    steps = how.steps * how.block // how.length
    for first in range(start, start + how.length, how.block):
        for due in shares(how.block, steps):
            open_ = x == how.mask
            logits = network(x)
            logits[..., how.mask] = -torch.inf
            tokens = noised(logits, how.temperature).argmax(-1)
            sure = logits.softmax(-1).gather(-1, tokens[..., None])[..., 0]
            sure[:, first + how.block :] = -torch.inf
            best = sure.masked_fill(~open_, -torch.inf)[0].topk(due).indices
            x[0, best] = tokens[0, best]
    return x[0, start:]


def vote(
    network: Network, prompt: Tensor, paths: Sequence[Loop], read: Callable[[Tensor], str]
) -> str:
    """HEX: the most frequent text, ties to the one that came first; small blocks come first."""
    said = Counter(read(fill(network, prompt, how)) for how in paths)
    return said.most_common(1)[0][0]

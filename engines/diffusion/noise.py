"""Noise that belongs to a place: keyed on (seed, step, position), the same in any company.

Counter-based, in integer arithmetic that is exact on every device, so a draw depends neither on
the batch it stands in nor on the machine. It knows no canvas and no rule.
"""

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
WORD = 2**64
TOKENS, ORDER = 1, 2
"""What noise is for: a position's token, or its place in a random order."""


def signed(word: int) -> int:
    """The 64 bits of `word` as torch's signed integer."""
    word %= WORD
    return word - WORD if word >= WORD // 2 else word


def mixed(words: Tensor) -> Tensor:
    """SplitMix64's finaliser over int64: every bit of the input moves every bit of the output."""
    words = (words ^ _shifted(words, 30)) * signed(FIRST)
    words = (words ^ _shifted(words, 27)) * signed(SECOND)
    return words ^ _shifted(words, 31)


def _shifted(words: Tensor, by: int) -> Tensor:
    """A logical shift to the right; torch's own keeps the sign."""
    return (words >> by) & ((1 << (64 - by)) - 1)


def keys(seed: int | Tensor, use: int, step: int | Tensor, positions: Tensor) -> Tensor:
    """One key per position (int64); seed and step are one path's, or every position's own.

    As tensors they are int64 and already `signed`.
    """
    if isinstance(seed, int):
        seed = torch.tensor(signed(seed), device=positions.device)
    key = mixed(seed + signed(GOLDEN))
    for word in (use, step, positions):
        key = mixed((key ^ word) + signed(GOLDEN))
    return key


def uniform(key: Tensor) -> Tensor:
    """One number in (0, 1) per key, float64."""
    return (_shifted(mixed(key + signed(GOLDEN)), 11).double() + 0.5) * 2.0**-53


def gumbel(key: Tensor, size: int) -> Tensor:
    """Standard Gumbel noise, float64, shape [keys, size]."""
    tokens = torch.arange(1, size + 1, device=key.device) * signed(GOLDEN)
    return -torch.log(-torch.log(uniform(key[:, None] ^ mixed(tokens))))

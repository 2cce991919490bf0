"""Keys and values of a whole sequence, kept from one full forward pass for shorter ones.

Fast-dLLM's caches are both this: a later pass forwards only a part (the block, or all from the
block on), its fresh keys and values stand in for the kept ones, the rest is as it was at the
refresh. While nothing has changed since, that equals the full pass. It knows no block.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Cache:
    """One sequence's keys and values per layer, each [length, heads, width]."""

    __slots__ = ("keys", "length", "values")

    def __init__(self, length: int) -> None:
        self.length = length
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def share(self, other: "Cache") -> None:
        """Holds from now on what `other` holds; both are still empty."""
        self.keys, self.values = other.keys, other.values

    def keep(self, keys: Tensor, values: Tensor) -> None:
        """Takes the next layer's."""
        self.keys.append(keys.clone())
        self.values.append(values.clone())


def patched(
    caches: Sequence[Cache], layer: int, firsts: Tensor, keys: Tensor, values: Tensor
) -> tuple[Tensor, Tensor]:
    """Whole keys and values of several sequences, the fresh ones in place from `firsts` on.

    `keys` and `values` are [sequences, fresh, heads, width]; so are the results, whole length.
    """
    old_keys = torch.stack([cache.keys[layer] for cache in caches])
    old_values = torch.stack([cache.values[layer] for cache in caches])
    rows = torch.arange(len(caches), device=keys.device)[:, None]
    places = firsts[:, None] + torch.arange(keys.shape[1], device=keys.device)
    old_keys[rows, places] = keys
    old_values[rows, places] = values
    return old_keys, old_values

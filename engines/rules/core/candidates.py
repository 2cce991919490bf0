"""The likeliest tokens of a row, in an order that does not depend on luck."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engines.rules.core.base import Step

BLOCK = 64  # tokens; the best of each are compared first


def likeliest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(token ids, logits) of the `count` likeliest, [..., count], best first.

    Equal ones stand in the order of their ids.
    """
    count = min(count, logits.shape[-1])
    ids = best(logits, count).sort(dim=-1).values
    values = logits.gather(-1, ids)
    order = values.argsort(dim=-1, descending=True, stable=True)
    return ids.gather(-1, order), values.gather(-1, order)


def proposed(step: Step, agents: Sequence[str], count: int) -> tuple[Tensor, Tensor]:
    """The same of each agent as it would speak, [agents, rows, count]."""
    return likeliest(step.biased(step.logits[step.places(agents)]), count)


def best(logits: Tensor, count: int) -> Tensor:
    """Ids of the `count` highest, in any order, [..., count].

    They stand in the `count` blocks whose best are highest: a large vocabulary is not sorted.
    """
    blocks = logits.shape[-1] // BLOCK
    if logits.device.type != "cpu" or blocks <= 2 * count:
        return logits.topk(count).indices
    whole = blocks * BLOCK
    peaks = logits[..., :whole].view(*logits.shape[:-1], blocks, BLOCK).amax(-1)
    near = BLOCK * peaks.topk(count).indices.unsqueeze(-1) + torch.arange(BLOCK)
    rest = torch.arange(whole, logits.shape[-1]).expand(*logits.shape[:-1], -1)
    ids = torch.cat([near.flatten(-2), rest], -1)
    return ids.gather(-1, logits.gather(-1, ids).topk(count).indices)

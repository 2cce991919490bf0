"""The likeliest tokens of a row, in an order that does not depend on luck."""

import torch
from torch import Tensor


def likeliest(logprobs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(token ids, log-probabilities) of the `count` likeliest, [..., count], best first.

    Equal ones stand in the order of their ids.
    """
    count = min(count, logprobs.shape[-1])
    ids = torch.topk(logprobs, count, dim=-1).indices.sort(dim=-1).values
    values = logprobs.gather(-1, ids)
    order = values.argsort(dim=-1, descending=True, stable=True)
    return ids.gather(-1, order), values.gather(-1, order)


def only_at(ids: Tensor, values: Tensor, like: Tensor) -> Tensor:
    """A row that is `values` at `ids` and -inf elsewhere, in the shape of `like`."""
    row = torch.full_like(like, float("-inf"))
    return row.scatter(-1, ids, values.to(row.dtype))

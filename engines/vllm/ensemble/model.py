"""K causal language models as one model, in the worker: one sequence feeds all their caches.

Each forward pass runs every policy, so that all caches advance in lock-step. The first policy's
logits go to vLLM as the model's own; those of the others are computed only for rows whose request
has a rule. It knows no rule and no request.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig
from vllm.model_executor.model_loader import DefaultModelLoader
from vllm.model_executor.models.utils import init_vllm_registered_model

DIGITS, BASE = 4, 128  # a position in digits that half precision holds exactly


@dataclass
class Shelf:
    """Where the model leaves what the processor of the same step needs."""

    step: "Hidden | None" = None


shelf = Shelf()


@dataclass(frozen=True)
class Hidden:
    """One step's rows: hidden states of every policy, the first one's logits before any mask."""

    model: "PolicyEnsembleForCausalLM"
    parts: tuple[Tensor, ...]
    first: Tensor
    places: Tensor

    def logits(self, rows: Tensor | slice) -> Tensor:
        """[policies, rows, vocabulary] in float32, before any mask."""
        rest = zip(self.model.members()[1:], self.parts[1:], strict=True)
        first = self.first[rows]
        # Each is widened where it is put: a copy of a vocabulary's worth is megabytes.
        found = first.new_empty((len(self.parts), *first.shape), dtype=torch.float32)
        found[0] = first
        for place, (policy, part) in enumerate(rest, 1):
            found[place] = policy.compute_logits(part[rows])[:, : self.model.vocabulary]
        return found


class PolicyEnsembleForCausalLM(nn.Module):
    """The policies of an ensemble, side by side."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        """Made by vLLM from the ensemble's own folder."""
        super().__init__()
        config = vllm_config.model_config.hf_config
        self.config, self.vocabulary = config, config.vocab_size
        self.policies: Any = nn.ModuleDict()
        self.secondary_weights = []
        self.widths: list[int] = []
        for place, path in enumerate(config.policies):
            own = AutoConfig.from_pretrained(path, trust_remote_code=False)
            # vLLM reads a layer's number from its name: the place must not look like one.
            name = f"p{place}"
            self.policies[name] = init_vllm_registered_model(
                vllm_config,
                prefix=f"{prefix}.policies.{name}".lstrip("."),
                hf_config=own,
                architectures=own.architectures,
            )
            self.widths.append(own.get_text_config().hidden_size)
            self.secondary_weights.append(
                DefaultModelLoader.Source(path, revision=None, prefix=f"{name}.")
            )

    def members(self) -> list[Any]:
        """The policies in order."""
        return list(self.policies.values())

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """The first policy's embeddings; the others embed for themselves."""
        embedded: Tensor = self.members()[0].embed_input_ids(input_ids)
        return embedded

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        intermediate_tensors: object = None,
        inputs_embeds: object = None,
    ) -> Tensor:
        """All hidden states in one row for each token, and the token's position behind them."""
        found = [policy(input_ids, positions) for policy in self.members()]
        return torch.cat([*found, spelled(positions).to(found[0].dtype)], dim=-1)

    def compute_logits(self, hidden_states: Tensor) -> Tensor:
        """The first policy's logits; what the others need is left on the shelf."""
        *parts, places = torch.split(hidden_states, [*self.widths, DIGITS], dim=-1)
        first: Tensor = self.members()[0].compute_logits(parts[0])[:, : self.vocabulary]
        # vLLM masks and biases in place what it is given.
        shelf.step = Hidden(self, tuple(parts), first.clone(), read(places))
        return first

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Each policy loads its own; the folder's dummy tensor is nobody's."""
        loaded = set()
        for place, own in groupby(weights, key=lambda pair: pair[0].partition(".")[0]):
            if place in self.policies:
                named = ((name.partition(".")[2], tensor) for name, tensor in own)
                found = self.policies[place].load_weights(named)
                loaded |= {f"policies.{place}.{name}" for name in found}
        return loaded


def spelled(positions: Tensor) -> Tensor:
    """Positions as digits, [tokens, DIGITS]: a row of hidden states says where it stands."""
    powers = BASE ** torch.arange(DIGITS, device=positions.device)
    return positions[:, None] // powers % BASE


def read(digits: Tensor) -> Tensor:
    """The positions that digits spell, [rows]."""
    powers = BASE ** torch.arange(DIGITS, device=digits.device)
    return (digits.round().long() * powers).sum(-1)

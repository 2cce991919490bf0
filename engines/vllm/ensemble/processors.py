"""Where vLLM asks for a step's logits: one processor for both of its model runners.

The first runner tells of requests by batch updates, the second by slots; each is turned into rows,
and the rest is the same. The second has never run on a GPU here: it is written against vLLM's
source, so an ensemble asks for the first.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from vllm.v1.sample.logits_processor import LogitsProcessor as FirstProcessor
from vllm.v1.sample.logits_processor import process_dict_updates
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SecondProcessor

from engines.rules.core.cast import Cast, Reward
from engines.vllm.ensemble.model import shelf
from engines.vllm.ensemble.rows import Asked, Row, decide, form
from engines.vllm.ensemble.trace import Sender

CONFIG = "satisfice"  # of vLLM's additional_config
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seat:
    """A request in the first runner's batch: both lists are vLLM's own, and grow."""

    asked: Asked
    prompt: Sequence[int]
    output: Sequence[int]


class PolicyProcessor(FirstProcessor, SecondProcessor):
    """Lets each request's rule choose among the policies' logits."""

    def __init__(self, vllm_config: Any, *rest: Any) -> None:
        """`rest` is (device, pinned) from the first runner, (req_states,) from the second."""
        given = vllm_config.additional_config[CONFIG]
        rewards = {name: Reward(**made) for name, made in given["rewards"].items()}
        self.cast = Cast(tuple(given["members"]), given["reference"], rewards)
        self.sender = Sender(given["trace"])
        self.states: Any = rest[0] if len(rest) == 1 else None
        self.seats: dict[int, Seat] = {}
        self.slots: dict[int, Asked] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuses at admission what no worker could follow; ValueError with the reason."""
        form(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """It is not: greedy decoding asks as well."""
        return False

    # ---- the first runner

    def update_state(self, batch_update: Any) -> None:
        """Follows requests in and out of the batch, and from row to row."""
        process_dict_updates(self.seats, batch_update, self._seat)

    def _seat(self, params: Any, prompt: list[int] | None, output: list[int]) -> Seat | None:
        asked = self._asked(params)
        return None if asked is None else Seat(asked, prompt or (), output)

    def _asked(self, params: Any) -> Asked | None:
        """What a request asks for; None also where it cannot be followed, which is checked before.

        Nothing may be raised here: it would end the engine.
        """
        try:
            return Asked.by(params, self.cast)
        except Exception as fault:
            log.error("a rule that was let in cannot be followed: %s", fault)
            return None

    def _seated(self, places: Sequence[int]) -> list[Row]:
        """Rows that will give a token; those in the middle of a prompt give none."""
        rows = []
        for at, seat in self.seats.items():
            due = len(seat.prompt) + len(seat.output)
            if places[at] + 1 == due:
                rows.append(Row(at, seat.asked, due))
        return rows

    # ---- the second runner

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """A request takes a slot; whether it has a rule."""
        self.slots.pop(req_idx, None)
        asked = self._asked(sampling_params)
        if asked is not None:
            self.slots[req_idx] = asked
        return asked is not None

    def _slotted(self, ctx: Any) -> list[Row]:
        """Rows that will give a token; one for each request, since drafts are refused."""
        slots = ctx.idx_mapping_np.tolist()
        if not any(slot in self.slots for slot in slots):
            return []
        places, rows = ctx.pos.tolist(), []
        for at, slot in enumerate(slots):
            asked = self.slots.get(slot)
            if asked is not None and places[at] + 1 >= int(self.states.prefill_len.np[slot]):
                rows.append(Row(at, asked, places[at] + 1))
        return rows

    # ---- both

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """Writes the rows that rules decide and sends their trace; never raises."""
        step, shelf.step = shelf.step, None
        rows: list[Row] = []
        try:
            if ctx is not None:
                rows = self._slotted(ctx)
            elif self.seats and step is not None:
                rows = self._seated(step.places.tolist())
            if rows:
                self.sender.send(decide(self.cast, step, logits, rows))
        except Exception as fault:
            log.exception("a step's rules could not be followed")
            self._excuse(rows, f"{type(fault).__name__}: {fault}")
        return logits

    def _excuse(self, rows: Sequence[Row], reason: str) -> None:
        """Tells who waits for these rows' choices that there are none."""
        record = {"policy": self.cast.members[0], "degraded": f"the step's rules failed: {reason}"}
        with suppress(Exception):
            self.sender.send([(row.asked.trace, row.position, record) for row in rows])

"""A sequence: prefix ids as a value, with an engine behind it.

Fork, append and rewind cost nothing here, since the engine's prefix cache makes a restart from any
accepted prefix cost one block. It does not know who decides what is appended.
"""

from collections.abc import AsyncGenerator
from collections.abc import Sequence as Ids
from dataclasses import dataclass
from typing import Self

from engines.base import Delta, Engine, Sampling, TokenLogprob


@dataclass(frozen=True, slots=True)
class Sequence:
    """Token ids over one engine; immutable, so a fork is the value itself."""

    engine: Engine
    ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def fork(self) -> Self:
        """An independent continuation point; what happens to it never changes this one."""
        return self

    def append(self, tokens: Ids[int]) -> "Sequence":
        """This sequence with forced or accepted tokens at its end."""
        return Sequence(self.engine, (*self.ids, *tokens))

    def rewind(self, length: int) -> "Sequence":
        """The first `length` tokens (0 < length <= len)."""
        if not 0 < length <= len(self.ids):
            raise ValueError(f"cannot rewind {len(self.ids)} tokens to {length}")
        return Sequence(self.engine, self.ids[:length])

    def generate(self, sampling: Sampling, limit: int) -> AsyncGenerator[Delta, None]:
        """Samples at most `limit` tokens after this sequence."""
        return self.engine.generate(self.ids, sampling, limit)

    async def score(self, continuation: Ids[int]) -> list[TokenLogprob]:
        """Log-probability of each token of `continuation`."""
        return await self.engine.score(self.ids, continuation)

    async def next_logprobs(self, k: int) -> dict[int, float]:
        """Log-probabilities of the `k` most likely next tokens."""
        return await self.engine.next_logprobs(self.ids, k)

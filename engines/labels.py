"""What an engine is whose model has labels in the place of a next token.

Rewards and classifiers: they are read by `classify` and by nothing else. It knows no kind of
engine; each that can load such a model mixes this in.
"""

from collections.abc import AsyncGenerator, Sequence

from engines.base import POOLING, Delta, Engine, Sampling, TokenLogprob, UnsupportedError


class LabelsOnly(Engine):
    """Refuses everything that needs a next token."""

    capabilities = POOLING

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, limit: int
    ) -> AsyncGenerator[Delta, None]:
        """Refused."""
        raise self._refusal()
        yield  # without it this would be no generator

    async def score(self, prefix: Sequence[int], continuation: Sequence[int]) -> list[TokenLogprob]:
        """Refused."""
        raise self._refusal()

    async def next_logprobs(
        self,
        prefix: Sequence[int],
        k: int | None = None,
        *,
        tokens: Sequence[int] | None = None,
        member: str | None = None,
    ) -> dict[int, float]:
        """Refused."""
        raise self._refusal()

    async def prompt_logprobs(self, prompt: Sequence[int], top: int) -> list[TokenLogprob | None]:
        """Refused."""
        raise self._refusal()

    def _refusal(self) -> UnsupportedError:
        return UnsupportedError(f"engine {self.name!r} classifies and samples no tokens", "model")

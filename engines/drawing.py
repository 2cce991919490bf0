"""How one token is drawn from logits, in the open: penalties, bans, temperature, filters, the draw.

One row of numpy logits at a time, for engines that sample for themselves. The order of the steps is
vLLM's, so that both mean the same by the same request. It does not know models or requests.
"""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from engines.base import Sampling, TokenLogprob, UnsupportedError

Row = NDArray[np.floating]


def log_softmax(logits: Row) -> NDArray[np.float64]:
    """Natural log-probabilities of one row of logits, shape [vocabulary]."""
    row = logits.astype(np.float64)
    row = row - row.max()
    return np.asarray(row - np.log(np.exp(row).sum()), dtype=np.float64)


def best(logprobs: Row, k: int) -> tuple[tuple[int, float], ...]:
    """The `k` likeliest (token id, log-probability) of a row, best first, impossible ones out."""
    k = min(k, len(logprobs))
    order = np.argsort(-logprobs, kind="stable")[:k] if k else np.zeros(0, int)
    return tuple((int(i), float(logprobs[i])) for i in order if np.isfinite(logprobs[i]))


def entry(logprobs: Row, token: int, top: int) -> TokenLogprob:
    """One token's log-probability in a row, with the `top` likeliest beside it."""
    return TokenLogprob(int(token), float(logprobs[token]), best(logprobs, top))


class Draw:
    """Draws one request's tokens. `prompt` and `ends` (stop tokens and EOS) are token ids."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], ends: Collection[int]) -> None:
        self._sampling = sampling
        self._ends = list(ends)
        self._output: Counter[int] = Counter()
        self._seen = set(prompt)
        # numpy takes no negative seed.
        seed = None if sampling.seed is None else sampling.seed % 2**64
        self._random = np.random.default_rng(seed)

    def next(self, logits: Row) -> TokenLogprob:
        """Draws from a row of logits, shape [vocabulary]; the log-probability is the draw's own.

        At temperature 0 it is that of the adjusted logits at temperature 1.
        """
        return self.drawn(self.distribution(logits))

    def drawn(self, row: Row) -> TokenLogprob:
        """Draws from log-probabilities as they are, shape [vocabulary]."""
        if self._sampling.temperature == 0:
            token = int(row.argmax())
        else:
            mass = np.exp(row).cumsum()
            token = int(np.searchsorted(mass, self._random.random() * mass[-1], side="right"))
        return self.settled(row, token)

    def settled(self, row: Row, token: int) -> TokenLogprob:
        """Takes a token that is settled already; its log-probability is the one in `row`."""
        self._output[token] += 1
        self._seen.add(token)
        return entry(row, token, self._sampling.logprobs or 0)

    def distribution(self, logits: Row) -> NDArray[np.float64]:
        """Log-probabilities that the next token is drawn from, shape [vocabulary]."""
        return self.filtered(self._penalised(self.masked(logits)))

    def filtered(self, row: Row) -> NDArray[np.float64]:
        """Log-probabilities of adjusted logits under temperature and filters."""
        wide = row.astype(np.float64)
        if heat := self._sampling.heat:
            wide = self._filtered(wide / heat)
        return log_softmax(wide)

    def masked(self, logits: Row) -> NDArray[np.float64]:
        """Logits under bans, minimum length and bias: what greedy decoding sees as well."""
        wanted, row = self._sampling, logits.astype(np.float64)
        row[list(wanted.banned)] = -np.inf
        if self._output.total() < wanted.min_tokens:
            row[self._ends] = -np.inf
        for token, bias in wanted.logit_bias.items():
            row[token] += bias
        if not np.isfinite(row).any():
            raise UnsupportedError("every token is banned", "logit_bias")
        return row

    def _penalised(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logits under penalties for what has been said."""
        wanted = self._sampling
        if wanted.repetition_penalty != 1:
            seen = list(self._seen)
            penalty = wanted.repetition_penalty
            row[seen] = np.where(row[seen] > 0, row[seen] / penalty, row[seen] * penalty)
        if wanted.frequency_penalty or wanted.presence_penalty:
            for token, count in self._output.items():
                row[token] -= wanted.frequency_penalty * count + wanted.presence_penalty
        return row

    def _filtered(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """min_p, then top_k, then top_p, each on what the one before left."""
        wanted = self._sampling
        if wanted.min_p > 0:
            row = np.where(row < row.max() + np.log(wanted.min_p), -np.inf, row)
        if 0 < wanted.top_k < len(row):
            row = np.where(row < np.partition(row, -wanted.top_k)[-wanted.top_k], -np.inf, row)
        if wanted.top_p < 1:
            order = np.argsort(-row, kind="stable")
            mass = np.exp(log_softmax(row))[order]
            # A token stays while those likelier than it hold less than top_p; the first always.
            late = mass.cumsum() - mass >= wanted.top_p
            late[0] = False
            row[order[late]] = -np.inf
        return row

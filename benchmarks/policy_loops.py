"""What a policy ensemble is compared with: the same choice for each token made outside of it.

A coordinator asks an engine for each policy what comes next, token by token, with the prefix cache
to go on from; or it steps open sessions over one engine, the best case that there can be: they
share one model's weights and its batches. A plain loop holds the policies as transformers loads
them, a cache each, and decodes its requests, which begin and end together, as one batch. A
coordinator's choice costs next to nothing, whatever the rule. They know no benchmark.
"""

import asyncio
import math
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any

import torch
from torch import Tensor

from engines.base import Engine, Rule, Sampling
from engines.rules.core.base import Step, Verdict
from engines.rules.core.cast import Cast
from engines.rules.core.registry import checked, find
from engines.vllm.engine import VllmEngine

TOP = 10
Row = dict[int, float]


async def coordinated(
    engines: Sequence[Engine], prompts: Sequence[Sequence[int]], limit: int
) -> None:
    """Answers all prompts at once, `limit` tokens each, by what each engine finds likely next."""

    async def answered(ids: list[int]) -> None:
        for _ in range(limit):
            rows = await asyncio.gather(*(engine.next_logprobs(ids, TOP) for engine in engines))
            ids.append(likeliest(rows))

    await asyncio.gather(*(answered(list(ids)) for ids in prompts))


async def stepped(
    engine: VllmEngine, policies: int, prompts: Sequence[Sequence[int]], limit: int
) -> None:
    """Answers all prompts at once, `limit` tokens each, through a session per policy and prompt."""
    await asyncio.gather(*(_stepped(engine, policies, ids, limit) for ids in prompts))


async def _stepped(engine: VllmEngine, policies: int, prompt: Sequence[int], limit: int) -> None:
    sampling = Sampling(temperature=0, ignore_eos=True, logprobs=TOP)
    async with AsyncExitStack() as stack:
        open_ = [
            await stack.enter_async_context(engine.session(prompt, sampling))
            for _ in range(policies)
        ]
        for _ in range(limit):
            rows = await asyncio.gather(*map(_taken, open_))
            # Sessions over one model have sampled this very token, but for ties: none goes back.
            likeliest(rows)


async def _taken(session: Any) -> Row:
    """One more token; the step's likeliest ones."""
    async with aclosing(session.take(1)) as deltas:
        [delta] = [delta async for delta in deltas]
    return dict(delta.logprobs[0].top)


def likeliest(rows: Sequence[Row]) -> int:
    """The token that the policies together like best, of those that all of them name."""
    totals = {token: sum(row.get(token, -math.inf) for row in rows) for token in rows[0]}
    return max(totals, key=lambda token: totals[token])


class PlainLoop:
    """The policies as transformers loads them."""

    def __init__(self, paths: Sequence[str], cast: Cast) -> None:
        """Loads all of them, in their checkpoints' own precision, as the engine does."""
        from transformers import AutoModelForCausalLM

        self._models = [
            AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval() for path in paths
        ]
        self._cast = cast

    @torch.inference_mode()
    def decoded(
        self,
        prompts: Sequence[Sequence[int]],
        limit: int,
        rule: Rule,
        *,
        greedy: bool,
        threads: int,
    ) -> Tensor:
        """[prompts, limit] tokens; prompts are of equal length. `greedy`: temperature 0, else 1.

        Uses so many cores.
        """
        torch.set_num_threads(threads)
        choose = find(rule.name).choose
        asked = checked(rule.name, rule.parameters, self._cast)
        unread, caches = torch.tensor(prompts), [None] * len(self._models)
        said = []
        for _ in range(limit):
            rows = []
            for at, model in enumerate(self._models):
                out = model(unread, past_key_values=caches[at], use_cache=True)
                caches[at] = out.past_key_values
                rows.append(out.logits[:, -1].float())
            step = Step(self._cast, torch.stack(rows), greedy)
            unread = _token(choose(step, asked), step)[:, None]
            said.append(unread)
        return torch.cat(said, 1)


def _token(verdict: Verdict, step: Step) -> Tensor:
    """[rows] the tokens that the rule settled, or drew."""
    if verdict.tokens is not None:
        return verdict.tokens
    return torch.multinomial(verdict.spoken(step).softmax(-1), 1)[:, 0]

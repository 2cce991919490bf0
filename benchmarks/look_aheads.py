"""What an emitted token costs where candidates are looked ahead of: tokens, monitor calls, seconds.

Collab and SITAlign over an ensemble, the built-in reward in this process; p candidates of each
agent, look-aheads of L tokens, candidates of M tokens. It knows no rules.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.overhead import summed
from decoders.core.answer import answer
from decoders.core.base import DecodeRequest
from decoders.core.ledger import Ledger
from decoders.core.registry import find
from decoders.core.run import checked, estimate
from engines.base import Engine, Sampling
from monitors.core.base import Monitor
from monitors.core.registry import build

REWARD = Path(__file__).resolve().parent.parent / "testbed" / "weights" / "reward"
AGENTS = {"agents": ["one", "two"], "target": "reward"}
ALL = {"skip_agreed": None, "plausible": 0.0}  # the paper's: every candidate, always
TILT = {"base": "one", "primary": "reward", "constrained": ["reward"], "thresholds": [0.0]}
# Strategy, candidates p, tokens looked ahead L, tokens of a candidate M.
CASES = (
    ("collab", 3, 4, 1), ("collab", 3, 20, 1), ("collab", 10, 4, 1), ("collab", 10, 20, 1),
    ("collab", 10, 20, 4), ("collab", 10, 20, 16), ("sitalign", 10, 20, 1),
    ("sitalign", 10, 20, 16),
)  # fmt: skip
EMITTED = 4  # tokens at least, and two blocks
CAP = 128  # of an answer, far enough for no look-ahead to be cut
Row = dict[str, Any]


async def measured(
    engine: Engine, rounds: int, prompt: Callable[[], Sequence[int]], out: Console
) -> AsyncIterator[Row]:
    """A row for each case."""
    reward = build("reward", {"kind": "sequence_reward", "model": str(REWARD)})
    await reward.start()
    for name, p, ahead, block in CASES:
        params: Row = {"candidates": p, "lookahead": ahead, "block": block}
        params |= {**AGENTS, **ALL} if name == "collab" else TILT
        found = []
        for number in range(rounds + 1):
            asked = request(engine, reward, name, params, prompt(), number)
            found.append(await emitted(asked, max(EMITTED, 2 * block)))
        tokens, calls, seconds = zip(*found[1:], strict=True)  # the first one warms up
        row = summed(name, 1, "seconds for an emitted token", list(seconds))
        row |= {"p": p, "L": ahead, "M": block, "tokens": fmean(tokens), "calls": fmean(calls)}
        out.print(str(row), style="dim")
        yield row
    await reward.stop()


def request(
    engine: Engine, reward: Monitor, name: str, params: Row, prompt: Sequence[int], seed: int
) -> DecodeRequest:
    """One request as a server would make it, at temperature 1."""
    made = DecodeRequest(
        engine=engine, prompt=tuple(prompt), strategy=name, max_tokens=CAP, seed=seed,
        options=checked(find(name).options, params, "decoding.params"),
        # With log-probabilities each token comes by itself, also one that shows no text yet.
        sampling=Sampling(ignore_eos=True, logprobs=0), monitors={"reward": reward}, chat=False,
        messages=({"role": "user", "content": "Which way?"},),
    )  # fmt: skip
    estimate(made)
    return made


async def emitted(asked: DecodeRequest, least: int) -> tuple[float, float, float]:
    """(tokens sampled, monitor calls, seconds) for each of the first `least` tokens."""
    now = asyncio.get_running_loop().time()
    [ledger] = Ledger.for_choices(asked.budget, 1, now)
    began, count = time.perf_counter(), 0
    async with aclosing(answer(asked, 0, ledger)) as pieces:
        async for piece in pieces:
            count += len(piece.tokens)
            if count >= least:
                break
        seconds = time.perf_counter() - began
        usage = ledger.usage
        spent = usage.generated_tokens, usage.monitor_calls
    return spent[0] / count, spent[1] / count, seconds / count


def show(rows: Sequence[Row], out: Console) -> None:
    """The table."""
    table = Table("strategy", "p", "L", "M", "tokens", "scores", "seconds", "95% interval", "n")
    for row in rows:
        figures = [f"{row[key]:.1f}" for key in ("tokens", "calls")]
        interval = f"{row['low']:.3f} to {row['high']:.3f}"
        cells = [row["model"], *(str(row[key]) for key in "pLM"), *figures, f"{row['ratio']:.3f}"]
        table.add_row(*cells, interval, str(row["pairs"]))
    out.print(table)

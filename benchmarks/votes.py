"""What a vote costs whoever waits for it: against as many plain requests sent at once, in one run.

    python -m benchmarks.votes [--n 24] [--json FILE]

For each question, in an order that turns: a vote of eight, one whose paths all go to their end, and
the slowest of eight plain requests, with the same sampling and seeds known beforehand; then the
first event of a streamed vote and the first token of a plain answer. Ratios are taken within a
question; the median has a 95% interval by order statistics.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.about import close
from benchmarks.medians import middle, ratio, repeats
from benchmarks.peers import OURS, PLAIN, REASONER, Asking, Heard
from benchmarks.servers import ours
from benchmarks.voters import ENGINE, THINK, Voter, own
from clients.eval.core.questions import FOLDER, Question, load

PATHS = 8
SLOWEST, FIRST = 1.3, 2.0
Took = Mapping[str, float]
Timed = Callable[[], Awaitable[float]]


@dataclass(frozen=True)
class Race:
    """One question's arms; the seeds of its requests are its own."""

    asking: Asking
    vote: Voter
    plain: Voter
    question: Question
    seed: int

    def arms(self) -> dict[str, Timed]:
        """What is timed, by name."""
        return {
            "vote": lambda: self.whole(self.vote),
            "full vote": lambda: self.whole(with_params(self.vote, early_stop=False)),
            "slowest": self.slowest,
            "first event": lambda: self.first(with_decoding(self.vote, stream_events=True)),
            "first token": lambda: self.first(self.plain),
        }

    async def whole(self, voter: Voter, offset: int = 0) -> float:
        """Seconds of an unstreamed answer."""
        heard = Heard()
        await self.asking.ask(self.seeded(voter, offset), self.question, heard)
        if heard.failed:
            raise RuntimeError(f"a request to {voter.name} failed")
        return heard.seconds[0]

    async def slowest(self) -> float:
        """Seconds of the slowest of eight plain requests sent at once."""
        return max(await asyncio.gather(*(self.whole(self.plain, at) for at in range(PATHS))))

    async def first(self, voter: Voter) -> float:
        """Seconds to the first text or event."""
        return await self.asking.first(self.seeded(voter, 0), self.question)

    def seeded(self, voter: Voter, offset: int) -> Voter:
        """The voter asked with a seed of this question's."""
        return replace(voter, body={**voter.body, "seed": self.seed + offset})


def with_decoding(voter: Voter, **more: Any) -> Voter:
    """The voter asked with more beside its strategy."""
    return replace(voter, body={**voter.body, "decoding": {**voter.body["decoding"], **more}})


def with_params(voter: Voter, **more: Any) -> Voter:
    """The voter asked with more parameters of its strategy."""
    return with_decoding(voter, params={**voter.body["decoding"]["params"], **more})


async def measured(
    asking: Asking, url: str, model: str, questions: Sequence[Question], out: Console
) -> list[Took]:
    """The seconds of every arm, by question."""
    vote, plain = Voter(OURS, url, model, url, PATHS, own(PATHS)), Voter(PLAIN, url, model, url, 1)
    found: list[Took] = []
    for turn, question in enumerate(questions):
        arms = Race(asking, vote, plain, question, 1000 * turn).arms()
        names = list(arms)
        first = turn % len(names)
        took = {name: await arms[name]() for name in names[first:] + names[:first]}
        found.append(took)
        told = ", ".join(f"{name} {took[name]:.3f}" for name in names)
        out.print(f"question {turn + 1}: {told}", style="dim")
    return found


def compared(found: Sequence[Took]) -> dict[str, dict[str, float]]:
    """The ratios that matter, over questions."""
    pairs = {
        "vote / slowest of eight": ("vote", "slowest"),
        "full vote / slowest of eight": ("full vote", "slowest"),
        "first event / first token": ("first event", "first token"),
    }
    return {name: middle([one[a] / one[b] for one in found]) for name, (a, b) in pairs.items()}


def verdicts(ratios: Mapping[str, Mapping[str, float]]) -> list[tuple[str, bool]]:
    """What was aimed at."""
    whole, first = ratios["vote / slowest of eight"], ratios["first event / first token"]
    return [
        (f"a vote of eight takes {ratio(whole)} times the slowest of eight plain requests, "
         f"at most {SLOWEST}", whole["value"] <= SLOWEST),
        (f"its first event comes after {ratio(first)} times the first token of a plain answer, "
         f"at most {FIRST}", first["value"] <= FIRST),
    ]  # fmt: skip


def show(found: Sequence[Took], ratios: Mapping[str, Mapping[str, float]], out: Console) -> None:
    """The tables."""
    table = Table("", "median s", "95% interval", "n")
    for name in found[0]:
        seconds = middle([one[name] for one in found])
        interval = f"{seconds['low']:.3f} to {seconds['high']:.3f}"
        table.add_row(name, f"{seconds['value']:.3f}", interval, str(seconds["n"]))
    for name, factor in ratios.items():
        interval = f"{factor['low']:.2f} to {factor['high']:.2f}"
        table.add_row(name, f"{factor['value']:.2f}", interval, str(factor["n"]))
    out.print(table)


async def run(n: int, out: Console) -> list[Took]:
    """Starts the server, asks a few questions for nothing and measures."""
    questions = load(FOLDER / "test.jsonl", n)
    with ours(REASONER, out, THINK, ENGINE) as server:
        async with httpx.AsyncClient(timeout=300) as client:
            asking = Asking(client)
            await measured(asking, server.url, server.model, questions[:2], Console(quiet=True))
            return await measured(asking, server.url, server.model, questions, out)


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=repeats, default=24)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = asyncio.run(run(args.n, Console(stderr=True)))
    ratios = compared(found)
    show(found, ratios, Console())
    close({"seconds": found, "ratios": ratios}, args.json, verdicts(ratios))


if __name__ == "__main__":
    main()

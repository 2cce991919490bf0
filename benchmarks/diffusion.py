"""HEX and single paths against the published loop: questions per second, in turn, in one run.

    python -m benchmarks.diffusion [--rounds 6] [--model FOLDER] [--json FILE]

A server with the diffusion engine alone is asked over HTTP by several clients; the loop
(`published`) runs in this process on the same cores while the server idles. Each round gives one
ratio; the table has their median and a 95% interval (order statistics). Beside it, how many paths a
second the server fills by the number of clients, over as many rounds.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.about import close
from benchmarks.medians import middle, ratio, repeats
from benchmarks.published import Loop, fill, vote
from clients.eval.core.asking import Arm, Asker, each
from clients.eval.core.ballots import Puzzle, load
from clients.eval.hex import OPTIONS
from clients.local import started
from testbed import DIFFUSION
from testbed.diffusion import loaded, read

LENGTH, BLOCKS, SEEDS, TEMPERATURE = 32, (2, 4, 8, 16, 32), 5, 0.9
BLOCK = 8
"""Of a single path."""
CHEAP: Mapping[str, Any] = {"rule": "threshold", "threshold": 0.9, "cache": "dual"}
CLIENTS = (1, 2, 4, 8, 16, 32, 64)
Row = dict[str, Any]


@dataclass(frozen=True)
class Contest:
    """One comparison: what the loop does for a puzzle, and what the server is asked instead.

    `few` and `many` are how many puzzles the loop and the server get in a round.
    """

    name: str
    loop: Callable[[Puzzle], str]
    arm: Arm
    few: int
    many: int
    clients: int


class Published:
    """The loop over the miniature network."""

    def __init__(self, folder: Path) -> None:
        model, self.tokenizer = loaded(folder)
        self.network: Callable[[torch.Tensor], torch.Tensor] = model
        mask = self.tokenizer.mask_token_id
        assert isinstance(mask, int)
        self.mask = mask

    def single(self, puzzle: Puzzle) -> str:
        """One path."""
        return self.read(fill(self.network, self.prompt(puzzle), self.how(BLOCK)))

    def hex(self, puzzle: Puzzle) -> str:
        """All paths, one after another, and their vote."""
        paths = [self.how(block) for block in BLOCKS for _ in range(SEEDS)]
        return vote(self.network, self.prompt(puzzle), paths, self.read)

    def how(self, block: int) -> Loop:
        """Two positions a pass."""
        return Loop(LENGTH, block, LENGTH // 2, TEMPERATURE, self.mask)

    def prompt(self, puzzle: Puzzle) -> torch.Tensor:
        """Its token ids."""
        said = [{"role": "user", "content": puzzle.prompt}]
        text = self.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        assert isinstance(text, str)
        return torch.tensor(self.tokenizer.encode(text, add_special_tokens=False))

    def read(self, tokens: torch.Tensor) -> str:
        """What a canvas says."""
        return read(self.tokenizer, tokens.tolist())


def asked(name: str, strategy: str, **params: Any) -> Arm:
    """An arm of the server."""
    decoding = {"strategy": strategy, "params": {"length": LENGTH, **params}}
    return Arm(name, decoding, {"temperature": TEMPERATURE, "max_tokens": LENGTH})


def contests(loop: Published) -> Iterator[Contest]:
    """What is compared."""
    votes: dict[str, Any] = {"blocks": list(BLOCKS), "seeds": SEEDS, "answer": "text"}
    exact, cheap = asked("exact", "hex", **votes), asked("cheap", "hex", **votes, **CHEAP)
    one = asked("cheap", "block_diffusion", block_length=BLOCK, **CHEAP)
    yield Contest("HEX, 25 paths, exact", loop.hex, exact, 2, 16, 16)
    yield Contest("HEX, 25 paths, cheap", loop.hex, cheap, 2, 48, 16)
    yield Contest("one path, cheap, one client", loop.single, one, 20, 60, 1)
    yield Contest("one path, cheap, 16 clients", loop.single, one, 20, 240, 16)


@contextmanager
def server(folder: Path, console: Console) -> Iterator[str]:
    """A server with this model alone; its address."""
    with TemporaryDirectory() as where:
        config = Path(where) / "diffusion.yaml"
        config.write_text(
            f"engines:\n  canvas: {{kind: diffusion, model: {folder.resolve()}}}\n"
            "models:\n  canvas: {engine: canvas}\n"
        )
        with started(console, ["--config", str(config)]) as local:
            yield local.url


async def answered(
    asker: Asker, arm: Arm, puzzles: Sequence[Puzzle], clients: int
) -> tuple[float, float]:
    """Puzzles a second, and the share that was right."""

    async def one(puzzle: Puzzle) -> bool:
        (reply,) = await asker.ask(arm, [puzzle], lambda: None)
        return reply.right

    began = time.perf_counter()
    right = await each(puzzles, one, lambda: None, clients)
    return len(puzzles) / (time.perf_counter() - began), sum(right) / len(right)


def looped(contest: Contest, puzzles: Sequence[Puzzle]) -> float:
    """Puzzles a second by the loop."""
    began = time.perf_counter()
    for puzzle in puzzles:
        contest.loop(puzzle)
    return len(puzzles) / (time.perf_counter() - began)


async def compared(
    contest: Contest, asker: Asker, puzzles: Sequence[Puzzle], rounds: int, out: Console
) -> Row:
    """All rounds of one contest; who goes first alternates."""
    ratios, found, right = list[float](), list[tuple[float, float]](), list[float]()
    for turn in range(rounds):
        some, more = (of_round(puzzles, turn, n) for n in (contest.few, contest.many))
        early = looped(contest, some) if turn % 2 else None
        ours, share = await answered(asker, contest.arm, more, contest.clients)
        theirs = looped(contest, some) if early is None else early
        ratios.append(ours / theirs)
        found.append((theirs, ours))
        right.append(share)
        out.print(f"{contest.name} round {turn + 1}: {theirs:.2f} and {ours:.2f} /s", style="dim")
    times = middle(ratios)
    return {
        "what": contest.name, "rounds": rounds, "ratio": times["value"],
        "low": times["low"], "high": times["high"],
        "loop": median(t for t, _ in found), "server": median(o for _, o in found),
        "right": sum(right) / rounds,
    }  # fmt: skip


def of_round(puzzles: Sequence[Puzzle], turn: int, n: int) -> list[Puzzle]:
    """The puzzles of one round; after the last comes the first."""
    return [puzzles[(turn * n + i) % len(puzzles)] for i in range(n)]


async def scaled(asker: Asker, puzzles: Sequence[Puzzle], rounds: int) -> list[Row]:
    """Paths a second by the number of clients, exact and cheap; who goes first alternates."""
    arms = [asked(name, "block_diffusion", block_length=BLOCK, **params)
            for name, params in (("exact", {}), ("cheap", CHEAP))]  # fmt: skip
    found = {(clients, arm.name): list[float]() for clients in CLIENTS for arm in arms}
    for turn in range(rounds):
        for clients in CLIENTS:
            some = of_round(puzzles, turn, max(24, 3 * clients))
            for arm in arms if turn % 2 == 0 else arms[::-1]:
                speed, _ = await answered(asker, arm, some, clients)
                found[clients, arm.name].append(speed)
    return [
        {"clients": clients, **{arm.name: middle(found[clients, arm.name]) for arm in arms}}
        for clients in CLIENTS
    ]


def show(rows: list[Row], scale: list[Row], out: Console) -> None:
    """Both tables."""
    table = Table("what", "times the loop", "95% interval", "rounds", "loop /s", "server /s")
    for row in rows:
        interval = f"{row['low']:.1f} to {row['high']:.1f}"
        speeds = (f"{row['loop']:.2f}", f"{row['server']:.2f}")
        table.add_row(row["what"], f"{row['ratio']:.1f}", interval, str(row["rounds"]), *speeds)
    out.print(table)
    table = Table("clients", "rounds", "exact paths /s", "cheap paths /s")
    for row in scale:
        exact, cheap = row["exact"], row["cheap"]
        table.add_row(str(row["clients"]), str(exact["n"]), ratio(exact), ratio(cheap))
    out.print(table)


async def measure(folder: Path, rounds: int, out: Console) -> tuple[list[Row], list[Row]]:
    """Everything, on one server."""
    puzzles = load(Path(OPTIONS["test_file"]), 600)
    loop = Published(folder)
    with server(folder, out) as url:
        asker = Asker(url, "canvas", 0)
        rows = list[Row]()
        for contest in contests(loop):
            loop.single(puzzles[0])
            await answered(asker, contest.arm, puzzles[:4], 4)  # uncounted
            rows.append(await compared(contest, asker, puzzles, rounds, out))
        scale = await scaled(asker, puzzles, rounds)
        await asker.close()
    return rows, scale


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=repeats, default=6)
    parser.add_argument("--model", type=Path, default=DIFFUSION)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows, scale = asyncio.run(measure(given.model, given.rounds, Console(stderr=True)))
    show(rows, scale, Console())
    close({"rows": rows, "scale": scale}, given.json)


if __name__ == "__main__":
    main()

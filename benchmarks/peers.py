"""Votes side by side: this server against gateways over vLLM's, same prompts, same load, one run.

    python -m benchmarks.peers [--n 48] [--rounds 6] [--loads 1,4] [--json FILE]

`scripts/outside optillm its_hub` makes the gateways' environments. All engines hold the built-in
reasoner with the same arguments and share the cores. The questions are parted into rounds; who is
asked first alternates. Times are ratios of medians in a round, with intervals by order statistics,
of requests that were answered. Accuracy is by the questions' known answers; tokens are the engine's
own counter, beside what the answers' `usage` claims. A request that fails is a wrong answer and is
counted; against a voter with any no bar holds. Then the first sign of life of streamed requests,
and what clients that vanish after 0.3 s leave running.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import hypot, inf
from pathlib import Path
from statistics import fmean, median
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.about import close
from benchmarks.medians import middle, ratio, repeats
from benchmarks.voters import LONGEST, Voter, voters
from clients.eval.core.questions import FOLDER, Question, clusters, load
from clients.eval.core.statistics import Interval, difference, mean, wilson

REASONER = Path(__file__).resolve().parent.parent / "testbed" / "weights" / "reasoner"
MINE = "parallel_thinking"
OURS, PLAIN = f"{MINE}, 8", "one sample"
MARGIN = 0.1
"""How much less often right still counts as no less: what 48 questions can tell; 144 told 0.07."""
GONE_AFTER, VANISHING, VANISHINGS, FIRSTS = 0.3, 8, 6, 12
EXACT = 0.02
"""How far usage may be from the engine's count: a path that is ended may have a step under way."""
WIDTH = 170
Row = dict[str, Any]


@dataclass
class Heard:
    """What one voter said to all questions under one load; `seconds` are of answers alone."""

    right: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    claimed: list[float] = field(default_factory=list)
    failed: int = 0
    generated: float = 0.0

    def add(self, other: "Heard") -> None:
        """Takes what was said elsewhere."""
        self.right += other.right
        self.seconds += other.seconds
        self.claimed += other.claimed
        self.failed += other.failed


@dataclass(frozen=True)
class Asking:
    """Sends questions to a voter."""

    client: httpx.AsyncClient

    def body(self, voter: Voter, question: Question, **more: Any) -> Row:
        """The request."""
        messages = [{"role": "user", "content": question.prompt}]
        return {
            "model": voter.model, "messages": messages, "temperature": 1.0, "max_tokens": LONGEST,
            **voter.body, **more,
        }  # fmt: skip

    async def ask(self, voter: Voter, question: Question, heard: Heard) -> None:
        """One answer, unstreamed."""
        began, told = time.perf_counter(), dict[str, Any]()
        url = f"{voter.url}/v1/chat/completions"
        try:
            answer = await self.client.post(url, json=self.body(voter, question))
            told = answer.raise_for_status().json()
            heard.seconds.append(time.perf_counter() - began)
        except httpx.HTTPError:
            heard.failed += 1
        heard.right.append(float(question.is_right(said(told))))
        heard.claimed.append(claimed(told.get("usage") or {}))

    async def all(self, voter: Voter, questions: Sequence[Question], clients: int) -> Heard:
        """Every question, so many at once, in order."""
        heard, turns = [Heard() for _ in questions], asyncio.Semaphore(clients)
        before = voter.generated()

        async def one(question: Question, into: Heard) -> None:
            async with turns:
                await self.ask(voter, question, into)

        await asyncio.gather(*map(one, questions, heard))
        await idle(voter)
        whole = Heard(generated=voter.generated() - before)
        for each in heard:
            whole.add(each)
        return whole

    async def first(self, voter: Voter, question: Question, **more: Any) -> float:
        """Seconds to the first chunk that says anything: text or an event; inf if none does."""
        began, seconds = time.perf_counter(), inf
        body = self.body(voter, question, stream=True, **more)
        async with self.client.stream("POST", f"{voter.url}/v1/chat/completions", json=body) as got:
            async for line in got.aiter_lines():
                if says(line):
                    seconds = time.perf_counter() - began
                    break
        return seconds

    async def vanish(self, voter: Voter, questions: Sequence[Question]) -> tuple[float, float]:
        """Tokens generated after all clients have gone, and seconds until the engine is idle."""

        async def gone(question: Question) -> None:
            try:
                async with asyncio.timeout(GONE_AFTER):
                    await self.ask(voter, question, Heard())
            except TimeoutError:
                pass

        await asyncio.gather(*map(gone, questions))
        before = voter.generated()
        seconds = await idle(voter)
        return voter.generated() - before, seconds


def said(answer: Mapping[str, Any]) -> str:
    """The content of an answer; "" if it failed."""
    (choice,) = answer.get("choices") or [{}]
    return (choice.get("message") or {}).get("content") or ""


def claimed(usage: Mapping[str, Any]) -> float:
    """The tokens that an answer says were generated for it."""
    told = usage.get("decoding") or {}
    return float(told.get("generated_tokens", usage.get("completion_tokens") or 0))


def says(line: str) -> bool:
    """Whether a line of a stream holds text, thinking or an event."""
    if not line.startswith("data: {"):
        return False
    (choice,) = json.loads(line.removeprefix("data: ")).get("choices") or [{}]
    delta = choice.get("delta") or {}
    event = (choice.get("decoding") or {}).get("event")
    return bool(delta.get("content") or delta.get("reasoning") or event)


async def idle(voter: Voter, quiet: int = 3, patience: float = 60.0) -> float:
    """Seconds until nothing more was generated; gateways may yet send what they were asked for."""
    began, last, same, changed = time.perf_counter(), -1.0, 0, 0.0
    while same < quiet and time.perf_counter() - began < patience:
        now = voter.generated()
        still = now == last and not voter.busy()
        same = same + 1 if still else 0
        if not still:
            changed = time.perf_counter() - began
        last = now
        await asyncio.sleep(0.2)
    return changed


async def sides(
    asking: Asking, them: Sequence[Voter], questions: Sequence[Question], rounds: int,
    loads: Sequence[int], out: Console,
) -> dict[tuple[str, int], list[Heard]]:  # fmt: skip
    """What everyone said, by name and number of clients, a list over rounds of the questions.

    Raises RuntimeError as soon as somebody answered nothing in a round.
    """
    found: dict[tuple[str, int], list[Heard]] = {}
    for turn in range(rounds):
        for clients in loads:
            for voter in them if turn % 2 == 0 else them[::-1]:
                heard = await asking.all(voter, parted(questions, rounds)[turn], clients)
                if not heard.seconds:
                    raise RuntimeError(f"{voter.name} answered nothing: all requests failed")
                found.setdefault((voter.name, clients), []).append(heard)
                out.print(
                    f"round {turn + 1}, {clients} clients, {voter.name}: "
                    f"{fmean(heard.right):.2f} right, {sum(heard.seconds):.0f} s"
                )
    return found


def parted(questions: Sequence[Question], rounds: int) -> list[Sequence[Question]]:
    """The questions of each round; templates and levels are spread over all."""
    return [questions[turn::rounds] for turn in range(rounds)]


def compared(
    found: Mapping[tuple[str, int], Sequence[Heard]], questions: Sequence[Question]
) -> list[Row]:
    """A row for each voter and load; `questions` in the order that they were asked in."""
    rows = []
    for (name, clients), rounds in found.items():
        right = [value for one in rounds for value in one.right]
        names = clusters(questions)
        ours = found[OURS, clients]
        factors = times(rounds, ours, 50)
        usage = [sum(one.claimed) / one.generated for one in rounds]
        answers = len(right)
        rows.append({
            "name": name, "clients": clients, "n": answers, "accuracy": asdict(mean(right, names)),
            "behind": asdict(paired([value for one in ours for value in one.right], right, names)),
            "generated": sum(one.generated for one in rounds) / answers,
            "claimed": sum(sum(one.claimed) for one in rounds) / answers,
            "claimed_over_generated": middle(usage),
            "failed": sum(one.failed for one in rounds),
            "median_s": median(value for one in rounds for value in one.seconds),
            "p95_s": float(np.percentile([v for one in rounds for v in one.seconds], 95)),
            "time_over_ours": middle(factors), "factors": factors,
            "p95_over_ours": middle(times(rounds, ours, 95)),
        })  # fmt: skip
    return rows


def paired(ours: Sequence[float], theirs: Sequence[float], clusters: Sequence[str]) -> Interval:
    """The mean difference of a share over the same requests, ours minus theirs."""
    drawn, n = difference(ours, theirs, clusters), len(ours)
    more, less = (
        wilson(sum(a > b for a, b in zip(one, two, strict=True)), n)
        for one, two in ((ours, theirs), (theirs, ours))
    )
    # A bootstrap of few requests that differ is too sure of itself, one of none knows nothing.
    down = hypot(more.value - more.low, less.high - less.value)
    up = hypot(more.high - more.value, less.value - less.low)
    low, high = min(drawn.low, drawn.value - down), max(drawn.high, drawn.value + up)
    return Interval(drawn.value, low, high, n)


def times(rounds: Sequence[Heard], ours: Sequence[Heard], percentile: float) -> list[float]:
    """That percentile of the seconds over ours, for each round."""
    return [
        float(np.percentile(one.seconds, percentile) / np.percentile(other.seconds, percentile))
        for one, other in zip(rounds, ours, strict=True)
    ]


def count(found: Mapping[str, float]) -> str:
    """A large number with its interval."""
    return f"{found['value']:.0f} [{found['low']:.0f}, {found['high']:.0f}]"


def apart(found: Mapping[str, float]) -> str:
    """A difference with its interval."""
    return f"{found['value']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


async def measured(
    asking: Asking, them: Sequence[Voter], n: int, rounds: int, loads: Sequence[int], out: Console
) -> Row:
    """Everything."""
    questions = load(FOLDER / "test.jsonl", n)
    for voter in them:
        await asking.all(voter, questions[:2], 2)
    found = await sides(asking, them, questions, rounds, loads, out)
    by_name = {voter.name: voter for voter in them}
    ours = by_name[OURS]
    plain = Voter(PLAIN, ours.url, ours.model, ours.engine, 1)
    decoding = {"decoding": {**ours.body["decoding"], "stream_events": True}}
    firsts: dict[str, list[float]] = {}
    for question in questions[:FIRSTS]:
        firsts.setdefault("plain", []).append(await asking.first(plain, question))
        firsts.setdefault(OURS, []).append(await asking.first(ours, question, **decoding))
        for name in sorted(by_name.keys() - {OURS, PLAIN}):
            firsts.setdefault(name, []).append(await asking.first(by_name[name], question))
    for voter in them:
        await idle(voter)
    left: dict[str, list[tuple[float, float]]] = {}
    for turn in range(VANISHINGS):
        for voter in them[:: 1 if turn % 2 == 0 else -1]:
            gone = await asking.vanish(voter, questions[:VANISHING])
            left.setdefault(voter.name, []).append(gone)
    return {
        "rows": compared(found, [one for part in parted(questions, rounds) for one in part]),
        "first_ms": {name: middle([1000 * v for v in values]) for name, values in firsts.items()},
        "vanished": {
            name: {"tokens": middle([t for t, _ in gone]), "idle_s": middle([s for _, s in gone])}
            for name, gone in left.items()
        },
    }  # fmt: skip


def verdicts(found: Row) -> list[tuple[str, bool]]:
    """What was aimed at."""
    rows = {(row["name"], row["clients"]): row for row in found["rows"]}
    checks = []
    for (name, clients), row in rows.items():
        if not name.endswith(", 8") or name == OURS:
            continue
        ours = rows[OURS, clients]
        failed = row["failed"] + ours["failed"]
        checks.append((
            f"{clients} clients: fewer tokens than {name} ({ours['generated']:.0f} against "
            f"{row['generated']:.0f}), faster ({ratio(row['time_over_ours'])} times as long) and "
            f"no less right (by {apart(row['behind'])}, margin {MARGIN}); n {row['n']}, "
            f"{failed} failed",
            not failed and ours["generated"] < row["generated"]
            and row["time_over_ours"]["low"] > 1 and row["behind"]["low"] >= -MARGIN,
        ))  # fmt: skip
    claims = [row["claimed_over_generated"] for (name, _), row in rows.items() if name == OURS]
    left = found["vanished"]
    gateways = [name for name in left if name != PLAIN and not name.startswith(MINE)]
    others = min(left[name]["tokens"]["low"] for name in gateways)
    ours_left = left[OURS]["tokens"]
    return [
        *checks,
        (f"usage is {', '.join(map(ratio, claims))} of what the engine counted, within {EXACT}",
         all(one["low"] >= 1 - EXACT and one["high"] <= 1 + EXACT for one in claims)),
        (f"clients that have gone leave fewer tokens ({count(ours_left)}, n {ours_left['n']}) than "
         f"elsewhere (from {others:.0f})", ours_left["high"] < others),
    ]  # fmt: skip


def show(found: Row, out: Console) -> None:
    """The tables."""
    table = Table(
        "", "clients", "n", "failed", "right", "ours more by", "tokens", "usage says", "rounds",
        "median s", "over ours", "p95 s", "over ours",
    )  # fmt: skip
    for row in found["rows"]:
        right = row["accuracy"]
        cells = (f"{row['generated']:.0f}", f"{row['claimed']:.0f}",
                 str(row["time_over_ours"]["n"]), f"{row['median_s']:.2f}",
                 ratio(row["time_over_ours"]), f"{row['p95_s']:.2f}",
                 ratio(row["p95_over_ours"]))  # fmt: skip
        told = f"{right['value']:.3f} [{right['low']:.3f}, {right['high']:.3f}]"
        counts = (str(row[key]) for key in ("clients", "n", "failed"))
        table.add_row(row["name"], *counts, told, apart(row["behind"]), *cells)
    out.print(table)
    for name, gone in found["vanished"].items():
        out.print(f"{name}: {count(gone['tokens'])} tokens after {VANISHING} clients had gone, "
                  f"idle after {ratio(gone['idle_s'])} s, n {gone['tokens']['n']}")  # fmt: skip
    firsts = {name: count(one) for name, one in found["first_ms"].items()}
    out.print(f"first sign of life, ms, n {min(FIRSTS, found['rows'][0]['n'])}:", firsts)


async def run(args: argparse.Namespace, out: Console) -> Row:
    """Starts everyone and measures."""
    with voters(REASONER, out) as them:
        # A connection for each request: servers close idle ones after times of their own.
        fresh = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=300, limits=fresh) as client:
            loads = [int(part) for part in args.loads.split(",")]
            return await measured(Asking(client), them, args.n, args.rounds, loads, out)


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=repeats, default=48)
    parser.add_argument("--rounds", type=repeats, default=6)
    parser.add_argument("--loads", default="1,4")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = asyncio.run(run(args, Console(stderr=True)))
    show(found, Console(width=None if sys.stdout.isatty() else WIDTH))
    close(found, args.json, verdicts(found), ("optillm", "its_hub"))


if __name__ == "__main__":
    main()

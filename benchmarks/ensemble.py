"""What choosing among three policies at each token costs, against one of them and against loops.

    python -m benchmarks.ensemble [--parts speed,wide,share,wide-share,loops,rollout]
        [--loads 1,8,32] [--rounds 7] [--json FILE]

Random models of 50M parameters, engines of this process, all arms in turn in every round; the table
has medians of the rounds' ratios with 95% intervals by order statistics. `speed` is against a third
of one policy's throughput, `share` what rules take of a step in the worker, both also with 32,768
logits to a token; `loops` is against a coordinator and a plain loop, `rollout` tells what looking
ahead costs. Every part takes less than eight minutes on two idle cores.
"""

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from benchmarks import look_aheads, random_llama
from benchmarks.about import about, write
from benchmarks.medians import repeats
from benchmarks.overhead import show, summed
from benchmarks.policy_loops import PlainLoop, coordinated, stepped
from benchmarks.servers import ENGINE_ARGS
from engines.base import Engine, Rule, Sampling
from engines.registry import build
from engines.vllm.engine import VllmEngine
from engines.vllm.ensemble.engine import VllmEnsemble

MEMBERS = ("one", "two", "three")
REWARDS = {
    "wish": {"member": "three", "reference": "one", "beta": 5.0},
    "hold": {"member": "two", "reference": "one", "beta": 5.0},
}
TILT = {"primary": "wish", "constrained": ["hold"], "base": "one"}
RULES = {
    "collab": Rule("collab", {"target": "wish", "agents": ["one", "two"]}),
    "sitalign": Rule("sitalign", {**TILT, "deltas": [0.0]}),
}
"""The bound is measured before anything else, see `bound`."""
SHAPES: Mapping[str, Mapping[str, int]] = {
    "50m": {},
    "50m, 32,768 logits": {"width": 512, "layers": 5, "vocabulary": 32_768},
}
TURNS = {1: 2, 8: 1, 32: 1}
"""Requests of each client, by how many clients there are."""
INPUT, OUTPUT = 64, 48
EXTENSION = "benchmarks.step_times.StepTimes"
Row = dict[str, Any]
Measure = Callable[[], Awaitable[float]]
draw = random.Random(1)


@dataclass(frozen=True)
class Bench:
    """Two engines over the same checkpoints, and where to tell how it goes."""

    shape: str
    paths: Mapping[str, str]
    alone: VllmEngine
    together: VllmEnsemble
    rounds: int
    loads: Sequence[int]
    out: Console


def prompt() -> list[int]:
    """Random ids that no earlier prompt began with, so that nothing is cached."""
    return [draw.randrange(10, 500) for _ in range(INPUT)]


def asking(rule: str | None) -> Sampling:
    """Collab settles its tokens; SITAlign draws, since only then it has multipliers to find."""
    heat = 1.0 if rule == "sitalign" else 0.0
    return Sampling(temperature=heat, ignore_eos=True, rule=RULES.get(rule or ""))


async def bound(engine: Engine) -> float:
    """A least advantage that binds about every other state: the candidates' mean."""
    free = Rule("sitalign", {"primary": "hold", "base": "one"})
    sampling = Sampling(temperature=1.0, ignore_eos=True, rule=free)
    found: list[float] = []
    async with aclosing(engine.generate(prompt(), sampling, OUTPUT)) as deltas:
        async for delta in deltas:
            for choice in delta.choices or ():
                found += [one for [one] in choice.notes["advantages"]]
    return fmean(found)


async def rate(engine: Engine, rule: str | None, concurrent: int) -> float:
    """Tokens a second of so many clients, each with a few requests in turn."""

    async def client() -> None:
        for _ in range(TURNS[concurrent]):
            async with aclosing(engine.generate(prompt(), asking(rule), OUTPUT)) as deltas:
                async for _ in deltas:
                    pass

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(concurrent)))
    return concurrent * TURNS[concurrent] * OUTPUT / (time.perf_counter() - began)


async def rounds(
    bench: Bench, concurrent: int, arms: Mapping[str, Measure]
) -> dict[str, list[float]]:
    """Every arm's figures, one a round; who begins changes from round to round."""
    names, found = list(arms), {name: list[float]() for name in arms}
    for measure in arms.values():
        await measure()
    for number in range(bench.rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(await arms[name]())
        told = ", ".join(f"{name} {values[-1]:.1f}" for name, values in found.items())
        bench.out.print(f"{bench.shape} x{concurrent} round {number + 1}: {told}", style="dim")
    return found


async def speed(bench: Bench) -> AsyncIterator[Row]:
    """The ensemble's throughput over a third of one policy's."""
    for concurrent in bench.loads:
        arms: dict[str, Measure] = {
            "one policy": lambda n=concurrent: rate(bench.alone, None, n),  # type: ignore[misc]
            "no rule": lambda n=concurrent: rate(bench.together, None, n),  # type: ignore[misc]
        }
        for name in RULES:
            arms[name] = lambda n=concurrent, r=name: rate(bench.together, r, n)  # type: ignore[misc]
        found = await rounds(bench, concurrent, arms)
        alone = found.pop("one policy")
        for name, values in found.items():
            ratios = [len(MEMBERS) * mine / one for mine, one in zip(values, alone, strict=True)]
            yield summed(bench.shape, concurrent, f"{name} / (one policy / 3)", ratios)


async def share(bench: Bench) -> AsyncIterator[Row]:
    """What of a step's time in the worker is the rule's own, and with the logits it asks for."""
    llm: Any = bench.together._llm
    await llm.collective_rpc("watch_steps")
    for concurrent in bench.loads:
        for name in RULES:
            own, whole, steps = list[float](), list[float](), list[float]()
            await rate(bench.together, name, concurrent)
            for _ in range(bench.rounds):
                await llm.collective_rpc("step_times")
                await rate(bench.together, name, concurrent)
                [told] = await llm.collective_rpc("step_times")
                own.append((told["rules"] - told["members"]) / told["step"])
                whole.append(told["rules"] / told["step"])
                steps.append(1000 * told["step"] / told["steps"])
            length = f"{median(steps):.1f} ms a step"
            bench.out.print(f"{bench.shape} x{concurrent} {name}: {length}", style="dim")
            yield summed(bench.shape, concurrent, f"{name}: rule / step", own)
            yield summed(bench.shape, concurrent, f"{name}: with members' logits", whole)


async def loops(bench: Bench) -> AsyncIterator[Row]:
    """The ensemble's throughput with each rule over a coordinator's and over a plain loop's."""
    others = [apart(name, path) for name, path in bench.paths.items() if name != MEMBERS[0]]
    plain = PlainLoop(list(bench.paths.values()), bench.together.cast)
    try:
        for engine in others:
            await engine.start()
        for name in RULES:
            for concurrent in bench.loads:
                arms = looped(bench, name, [bench.alone, *others], plain, concurrent)
                found = await rounds(bench, concurrent, arms)
                ours = found.pop(name)
                for other, values in found.items():
                    ratios = [mine / theirs for mine, theirs in zip(ours, values, strict=True)]
                    yield summed(bench.shape, concurrent, f"{name} / {other}", ratios)
    finally:
        for engine in others:
            await engine.stop()


def looped(
    bench: Bench, rule: str, engines: Sequence[Engine], plain: PlainLoop, concurrent: int
) -> dict[str, Measure]:
    """Tokens a second of so many clients: the ensemble's with this rule, and the loops'."""

    async def coordinator() -> None:
        await coordinated(engines, [prompt() for _ in range(concurrent)], OUTPUT)

    async def sessions() -> None:
        await stepped(bench.alone, len(MEMBERS), [prompt() for _ in range(concurrent)], OUTPUT)

    async def loop(threads: int) -> None:
        greedy = asking(rule).temperature == 0
        prompts = [prompt() for _ in range(concurrent)]
        plain.decoded(prompts, OUTPUT, RULES[rule], greedy=greedy, threads=threads)

    def timed(run: Callable[[], Awaitable[None]]) -> Measure:
        async def a_second() -> float:
            began = time.perf_counter()
            await run()
            return concurrent * OUTPUT / (time.perf_counter() - began)

        return a_second

    return {
        rule: lambda: rate(bench.together, rule, concurrent),
        "coordinator over three engines": timed(coordinator),
        "coordinator over sessions of one": timed(sessions),
        "plain Hugging Face loop": timed(lambda: loop(os.cpu_count() or 1)),
        # On a CPU vLLM keeps a core free of its worker.
        "plain Hugging Face loop, one core": timed(lambda: loop(1)),
    }


async def rollout(bench: Bench) -> AsyncIterator[Row]:
    """Tokens, monitor calls and seconds for an emitted token, by p, L and M."""
    async for row in look_aheads.measured(bench.together, bench.rounds, prompt, bench.out):
        yield row


PARTS: Mapping[str, tuple[str, Callable[[Bench], AsyncIterator[Row]]]] = {
    "speed": ("50m", speed),
    "wide": ("50m, 32,768 logits", speed),
    "share": ("50m", share),
    "wide-share": ("50m, 32,768 logits", share),
    "loops": ("50m", loops),
    "rollout": ("50m", rollout),
}


def apart(name: str, path: str) -> Engine:
    """An engine of one policy."""
    return build(name, {"kind": "vllm", "model": path, "engine_args": ENGINE_ARGS})


@asynccontextmanager
async def engines(
    shape: str, rounds: int, loads: Sequence[int], out: Console
) -> AsyncIterator[Bench]:
    """Three policies' checkpoints, one of them alone and all in one engine."""
    with TemporaryDirectory() as folder:
        paths = {name: str(Path(folder) / name) for name in MEMBERS}
        for seed, path in enumerate(paths.values()):
            random_llama.write(Path(path), seed=seed, **SHAPES[shape])
        args = {**ENGINE_ARGS, "worker_extension_cls": EXTENSION}
        alone = apart("alone", paths["one"])
        spec = {"kind": "ensemble", "members": paths, "rewards": REWARDS, "engine_args": args}
        together = build("together", spec)
        assert isinstance(alone, VllmEngine)
        assert isinstance(together, VllmEnsemble)
        try:
            await alone.start()
            await together.start()
            least = await bound(together)
            out.print(f"{shape}: the constrained advantage is at least {least:.2f}", style="dim")
            RULES["sitalign"] = Rule("sitalign", {**TILT, "deltas": [least]})
            yield Bench(shape, paths, alone, together, rounds, loads, out)
        finally:
            await together.stop()
            await alone.stop()


async def measured(part: str, asked: argparse.Namespace, out: Console) -> AsyncIterator[Row]:
    """One part's rows, each as soon as it is there."""
    shape, measure = PARTS[part]
    loads = [int(load) for load in asked.loads.split(",")]
    async with engines(shape, asked.rounds, loads, out) as bench:
        async for row in measure(bench):
            yield {"part": part, **row}


async def all_measured(asked: argparse.Namespace, out: Console) -> None:
    """Measures, prints and writes; what was there of a part and a load is replaced."""
    rows, told = list[Row](), dict[str, Any]()
    if asked.json and asked.json.exists():
        before = json.loads(asked.json.read_text())
        rows, told = before["rows"], before.get("about", {})
    for part in asked.parts.split(","):
        found = list[Row]()
        async for row in measured(part, asked, out):
            found.append(row)
            rows = [one for one in rows if what(one) != what(row)] + [row]
            if asked.json:
                told[part] = about()
                write(asked.json, {"about": told, "rows": rows})
        (look_aheads.show if part == "rollout" else show)(found, Console())


def what(row: Row) -> tuple[object, ...]:
    """What a row is of."""
    return tuple(row.get(key) for key in ("part", "model", "concurrent", "metric", "p", "L", "M"))


def main() -> None:
    """Parses the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--loads", default=",".join(map(str, TURNS)), help="clients at a time")
    parser.add_argument("--rounds", type=repeats, default=7)
    parser.add_argument("--json", type=Path)
    asyncio.run(all_measured(parser.parse_args(), Console(stderr=True)))


if __name__ == "__main__":
    main()

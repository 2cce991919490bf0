"""Hours in small: a mix of everything at 80% of capacity, and whether anything is left behind.

    python -m benchmarks.soak [--minutes 20] [--json FILE]

The built-in server, the load on the last core. Poisson arrivals of every strategy, with monitors;
one in ten clients vanishes, one in twenty requests is wrong. Capacity is how many requests of this
very mix a closed loop gets through in a second. Asked at the end: no 5xx but a deliberate 503,
memory flat, every request ended and none left in an engine, and what requests booked against what
the engines' own counters say they generated. `--minutes 1` is for trying.
"""

import argparse
import json
import random
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from benchmarks.about import close
from benchmarks.capacity import capacity
from benchmarks.watched import Watch, accesses, gauges, memory, pinned
from clients.bench.driver import Driver, driver
from clients.eval.core.prompts import FOLDER as PROMPTS
from clients.eval.core.questions import FOLDER as QUESTIONS
from clients.local import Local

SHARE, CLIENTS = 0.8, 32
VANISHED, WRONG = 0.1, 0.05
FIRST = 0.25
"""The part of the time in which caches and pools may still grow."""
BLOCKS = 10
STEPS = 2
"""What an engine may have on its way for a request that is being aborted."""
TESTBED = Path(__file__).resolve().parent.parent / "testbed"
MINI, UNSAFE, POLICIES, REWARDS, DIFFUSION = (
    f"satisfice-mini{end}" for end in ("", "-unsafe", "-policies", "-rewards", "-diffusion")
)
ASKED: Mapping[str, Path] = {
    MINI: QUESTIONS / "test.jsonl",
    UNSAFE: PROMPTS / "test.jsonl",
    POLICIES: TESTBED / "errands" / "test.jsonl",
    REWARDS: TESTBED / "brews" / "test.jsonl",
    DIFFUSION: TESTBED / "puzzles" / "test.jsonl",
}
COLLAB = {"target": "errands_reward", "candidates": 2, "lookahead": 4, "alpha": 0}
HELD_UP = {
    "primary": "helpfulness", "constrained": ["harmlessness"], "thresholds": [-2], "candidates": 3,
}  # fmt: skip
CANVAS = {"length": 32, "block_length": 8}
KINDS: Sequence[tuple[str, dict[str, Any]]] = (
    (MINI, {"strategy": "plain"}),
    (MINI, {"strategy": "parallel_thinking", "params": {"paths": 4}}),
    (MINI, {"strategy": "extended_thinking", "params": {"waits": 1}}),
    (MINI, {"strategy": "best_of_n", "params": {"samples": 3, "monitor": "reward"}}),
    (MINI, {"strategy": "plain", "budget": {"max_generated_tokens": 40}}),
    (UNSAFE, {"strategy": "safethink"}),
    (UNSAFE, {"strategy": "plain"}),
    (POLICIES, {"strategy": "collab", "params": COLLAB}),
    (POLICIES, {"strategy": "collab", "params": {"utility": "implicit", "target": "wish"}}),
    (POLICIES, {
        "strategy": "controlled_decoding",
        "params": {"monitor": "errands_reward", "samples": 4, "block": 4},
    }),
    (REWARDS, {"strategy": "sitalign", "params": {"utility": "prefix_reward", **HELD_UP}}),
    (REWARDS, {"strategy": "mod"}),
    (REWARDS, {"strategy": "genarm"}),
    (REWARDS, {"strategy": "args", "params": {"monitor": "helpfulness", "candidates": 3}}),
    (DIFFUSION, {"strategy": "block_diffusion", "params": CANVAS}),
    (DIFFUSION, {"strategy": "hex", "params": {"length": 32, "blocks": [4, 8, 16], "seeds": 2}}),
)  # fmt: skip
FAULTS: Sequence[dict[str, Any]] = (
    {"decoding": {"strategy": "parallel_thinking", "params": {"paths": 0}}},
    {"decoding": "no_such_strategy"},
    {"model": "no-such-model"},
    {"max_tokens": -1},
    {"temperature": "hot"},
)
Job = dict[str, Any]
Floats = NDArray[np.float64]


class Mix:
    """Requests drawn from a seed: strategies take turns at random, some vanish, some are wrong."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._texts = {model: _texts(path) for model, path in ASKED.items()}

    def request(self) -> dict[str, Any]:
        """One request of a job."""
        draw = self._random
        model, decoding = draw.choice(KINDS)
        text = draw.choice(self._texts[model])
        longest = CANVAS["length"] if model == DIFFUSION else 300
        body = {
            "model": model, "messages": [{"role": "user", "content": text}], "stream": True,
            "stream_options": {"include_usage": True}, "temperature": 1.0, "max_tokens": longest,
            "seed": draw.getrandbits(31), "decoding": {"stream_events": True, **decoding},
        }  # fmt: skip
        chance = draw.random()
        if chance < WRONG:
            return {"body": {**body, **draw.choice(FAULTS)}, "wrong": True}
        if chance < WRONG + VANISHED:
            return {"body": body, "vanish_s": draw.uniform(0.02, 1.0)}
        return {"body": body}


def _texts(path: Path) -> list[str]:
    return [json.loads(line)["prompt"] for line in path.read_text("utf-8").splitlines()]


def sent(local: Local, sending: Driver, requests: Sequence[Job], **load: Any) -> list[Job]:
    """The records of these requests under a load, each with what was asked."""
    heard: list[Job] = []
    job = {"url": local.url, "key": "none", "seed": 1, "timeout_s": 120, "requests": requests}
    sending.run({**job, **load}, heard.append)
    return [{**one, "asked": requests[one["index"]]} for one in heard]


def closed_loop(local: Local, sending: Driver, mix: Mix, n: int) -> list[float]:
    """When each of so many requests of the mix ended as it was meant to."""
    found = sent(local, sending, [mix.request() for _ in range(n)], concurrent=CLIENTS)
    return [one["sent"] + one["took"] for one in found if as_meant(one)]


def is_4xx(one: Job) -> bool:
    """Whether it was refused as the client's own fault."""
    status: int = one.get("status", 0)
    return 400 <= status < 500


def as_meant(one: Job) -> bool:
    """Whether a request was answered, or vanished or was refused where that was meant."""
    asked, error = one["asked"], one.get("error")
    if asked.get("wrong"):
        return is_4xx(one)
    return error is None or (error == "vanished" and "vanish_s" in asked)


def booked(figures: Mapping[str, float]) -> dict[str, float]:
    """What requests were charged and what the engines counted, in tokens; requests to engines.

    `ended`: requests of clients that the server has done with.
    """
    return {
        "ended": figures.get("requests_total", 0.0),
        "booked": figures.get("generated_tokens_total", 0.0),
        "counted": figures.get("engine:generated_tokens_total", 0.0),
        "requests": figures.get("engine_requests_total", 0.0),
        "aborted": figures.get("engine:aborted_requests_total", 0.0),
    }


def idle(url: str, patience: float = 30.0) -> tuple[float, dict[str, float]]:
    """Seconds until no engine has anything to do, and the figures then."""
    began = time.monotonic()
    while True:
        now = gauges(url)
        busy = now["running_requests"] + now["queued_requests"] + now["engine_running"]
        if not busy + now["engine:requests_running"] + now["engine:requests_waiting"]:
            return time.monotonic() - began, now
        if time.monotonic() - began > patience:
            return float("inf"), now
        time.sleep(0.05)


def slope(samples: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """MB an hour with its 95% interval, over block means, since neighbours resemble each other."""
    later: Floats = np.asarray(samples)[int(FIRST * len(samples)) :]
    blocks = np.array_split(later, min(BLOCKS, len(later)))
    hours = np.array([block[:, 0].mean() for block in blocks]) / 3600
    found = stats.linregress(hours, np.array([block[:, 1].mean() for block in blocks]))
    half = float(stats.t.ppf(0.975, len(blocks) - 2) * found.stderr)
    return float(found.slope), float(found.slope) - half, float(found.slope) + half


def gains(samples: Sequence[tuple[float, float]]) -> list[float]:
    """MB gained in each quarter of the time: growth that ends is no leak."""
    quarters = np.array_split(np.asarray(samples), 4)
    return [round(float(one[-1, 1] - one[0, 1]), 2) for one in quarters]


def soaked(local: Local, sending: Driver, minutes: float, out: Console) -> Job:
    """The whole soak; everything found."""
    mix = Mix(7)
    loop = partial(closed_loop, local, sending, mix)
    rate = capacity(loop, CLIENTS, min(60.0, 20 * minutes))
    out.print(f"capacity {rate:.2f} requests/s; {SHARE:.0%} of it for {minutes:g} min")
    _, before = idle(local.url)
    requests = [mix.request() for _ in range(round(SHARE * rate * 60 * minutes))]
    began = time.monotonic()
    look = lambda: (time.monotonic() - began, *memory(local.url))  # noqa: E731
    with Watch(look, max(1.0, minutes / 4)) as watch:
        records = sent(local, sending, requests, rate=SHARE * rate)
    waited, after = idle(local.url)
    spent = {key: booked(after)[key] - value for key, value in booked(before).items()}
    server = [(t, own) for t, own, _ in watch.seen]
    below = [(t, other) for t, _, other in watch.seen]
    return {
        "minutes": minutes, "capacity_per_s": rate, "n": len(records), "idle_after_s": waited,
        "tokens": spent, "server_mb": [server[0][1], server[-1][1]],
        "engines_mb": [below[0][1], below[-1][1]],
        "server_mb_per_hour": slope(server), "engines_mb_per_hour": slope(below),
        "server_mb_by_quarter": gains(server), "engines_mb_by_quarter": gains(below),
        **counted(records, accesses(local.log)),
    }  # fmt: skip


def counted(records: Sequence[Job], log: Sequence[Job]) -> Job:
    """How requests ended: as clients saw it, and every status in the server's log."""
    unexpected = [
        one["error"] for one in records
        if not (one["asked"].get("wrong") or as_meant(one) or one.get("status") == 503)
    ]  # fmt: skip
    wrong = [one for one in records if one["asked"].get("wrong")]
    statuses = [one["status"] for one in log]
    return {
        "answered": sum(not one.get("error") for one in records),
        "vanished": sum(one.get("error") == "vanished" for one in records),
        "refused": sum(one.get("status") == 503 for one in records),
        "wrong": len(wrong),
        "wrong_as_4xx": sum(map(is_4xx, wrong)),
        "unexpected": unexpected[:20],
        "statuses": {str(status): statuses.count(status) for status in sorted(set(statuses))},
    }


def verdicts(found: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """What must hold."""
    tokens = found["tokens"]
    beyond = tokens["counted"] - tokens["booked"]
    bad = [s for s in found["statuses"] if s.startswith("5") and s != "503"]
    missing = found["n"] - tokens["ended"]
    return [
        (f"no 5xx but 503 ({', '.join(bad) or 'none'})", not bad),
        (f"nothing unexpected at clients ({len(found['unexpected'])})", not found["unexpected"]),
        ("every wrong request is a 4xx", found["wrong"] == found["wrong_as_4xx"]),
        *(_flat(found, whose) for whose in ("server", "engines")),
        # Who vanishes may do so before the server has heard of it.
        (f"all {found['n']} requests ended but for {missing:.0f} of {found['vanished']} that "
         "vanished", 0 <= missing <= found["vanished"]),
        (f"{tokens['requests']:.0f} requests to engines, none left after "
         f"{found['idle_after_s']:.2f} s", found["idle_after_s"] < 30),
        (f"engines generated {beyond:.0f} tokens more than was booked "
         f"({beyond / max(1.0, tokens['counted']):.2%}), {tokens['aborted']:.0f} of their requests "
         "aborted: at most two steps each", 0 <= beyond <= STEPS * tokens["aborted"]),
    ]  # fmt: skip


def _flat(found: Mapping[str, Any], whose: str) -> tuple[str, bool]:
    """Whether memory that grows not at all lies within the slope's interval."""
    slope, low, _ = found[f"{whose}_mb_per_hour"]
    return f"memory of the {whose} is flat ({slope:.1f} MB/h, from {low:.1f})", low <= 0


def main() -> None:
    """Parses the command line, soaks, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    out = Console(stderr=True, highlight=False)
    with pinned(out, None) as local, driver() as sending:
        found = soaked(local, sending, asked.minutes, out)
    print(json.dumps(found, indent=1))
    close(found, asked.json, verdicts(found))


if __name__ == "__main__":
    main()

"""What this server costs over vLLM's own: the same work by `vllm bench serve`, in turn, in one run.

    python -m benchmarks.overhead [--pairs 7] [--models 50m,mini] [--clients 1 8 32] [--as-it-comes]
        [--json FILE]

Both engines are alike, vLLM's worker in a process of its own; `--as-it-comes` leaves this server's
where it would be. Each pair runs both servers one after the other, who goes first alternates, and
gives one ratio; the table has the median ratio with its range and a 95% interval (order statistics
of the pairs). Each row is printed and written as soon as it is measured.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from rich.console import Console
from rich.table import Table

from benchmarks.about import write
from benchmarks.medians import middle, repeats
from benchmarks.servers import AS_IT_COMES, Server, both

ROOT = Path(__file__).resolve().parent.parent
MINI = ROOT / "testbed" / "weights" / "reasoner"
BENCH = ROOT / ".envs" / "vllm-bench" / "bin" / "python"
LOADS = {"50m": {1: 8, 8: 32, 32: 96}, "mini": {1: 12, 8: 96, 32: 384}}
INPUT, OUTPUT = 64, 96
QUESTIONS = ROOT / "testbed" / "questions" / "test.jsonl"
LONGEST = 512
"""Tokens of a trained model's longest answer; nearly all end well before."""
# At two milliseconds a token the bench, on the same cores as the servers, reads several tokens of
# the miniature model at once, and times none of them.
METRICS = {"50m": ("output_throughput", "median_tpot_ms"), "mini": ("output_throughput",)}
Row = dict[str, Any]


def job(server: Server, checkpoint: Path, concurrent: int, prompts: int) -> Row:
    """The bench's options: greedy, streamed chat."""
    return work(checkpoint) | {
        "backend": "openai-chat",
        "base-url": server.url,
        "endpoint": "/v1/chat/completions",
        "model": server.model,
        "tokenizer": str(checkpoint),
        "temperature": 0,
        "seed": 1,
        "num-prompts": prompts,
        "max-concurrency": concurrent,
        "num-warmups": min(concurrent, 4),
        "disable-tqdm": True,
    }


def work(checkpoint: Path) -> Row:
    """Random weights write a fixed number of random tokens; a trained model answers its questions.

    The trained one past its end of text writes tokens that show no text, and time per token is
    measured by what is shown.
    """
    if checkpoint == MINI:
        return {
            "dataset-name": "custom",
            "dataset-path": str(QUESTIONS),
            "custom-output-len": LONGEST,
            "skip-chat-template": True,
        }
    return {
        "dataset-name": "random",
        "random-input-len": INPUT,
        "random-output-len": OUTPUT,
        "ignore-eos": True,
    }


class Driver:
    """A bench process that takes jobs one after another."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._in: IO[str] = process.stdin  # type: ignore[assignment]
        self._out: IO[str] = process.stdout  # type: ignore[assignment]

    def run(self, asked: Row) -> Row:
        """One run's figures; raises RuntimeError if the bench broke."""
        self._in.write(json.dumps(asked) + "\n")
        self._in.flush()
        line = self._out.readline()
        if not line:
            raise RuntimeError("the bench process ended; see its errors above")
        result: Row = json.loads(line)
        return result


@contextmanager
def driver(python: Path) -> Iterator[Driver]:
    """Starts the bench process in its own environment."""
    if not python.exists():
        raise SystemExit(f"{python} is missing; make it with: scripts/outside vllm-bench")
    process = subprocess.Popen(
        [str(python), str(ROOT / "benchmarks" / "drive.py")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Driver(process)
    finally:
        process.kill()


def measure(
    name: str, checkpoint: Path, clients: list[int], pairs: int, own: Mapping[str, Any],
    bench: Driver, out: Console,
) -> Iterator[list[Row]]:  # fmt: skip
    """All pairs over one checkpoint: for each number of clients its rows, one a metric.

    `own`: engine arguments of this project's server alone.
    """
    with both(checkpoint, out, own=own) as servers:
        for concurrent in clients:
            prompts = LOADS[name][concurrent]
            ratios: dict[str, list[float]] = {metric: [] for metric in METRICS[name]}
            for server in servers:  # one uncounted run each
                bench.run(job(server, checkpoint, concurrent, prompts))
            for pair in range(pairs):
                figures = one_pair(servers, checkpoint, concurrent, prompts, pair, bench)
                for metric, found in ratios.items():
                    found.append(figures["satisfice"][metric] / figures["vllm"][metric])
                out.print(f"{name} x{concurrent} pair {pair + 1}: {figures}", style="dim")
            yield [summed(name, concurrent, metric, found) for metric, found in ratios.items()]


def one_pair(
    servers: tuple[Server, Server], checkpoint: Path, concurrent: int, prompts: int, pair: int,
    bench: Driver,
) -> dict[str, Row]:  # fmt: skip
    """Both servers in turn; odd pairs the other way round."""
    order = servers if pair % 2 == 0 else servers[::-1]
    return {s.name: bench.run(job(s, checkpoint, concurrent, prompts)) for s in order}


def summed(name: str, concurrent: int, metric: str, ratios: list[float]) -> Row:
    """Median, range and interval of the pairs' ratios."""
    found = middle(ratios)
    return {
        "model": name, "concurrent": concurrent, "metric": metric, "pairs": len(ratios),
        "ratio": found["value"], "low": found["low"], "high": found["high"],
        "min": min(ratios), "max": max(ratios),
    }  # fmt: skip


def show(rows: list[Row], out: Console) -> None:
    """The table."""
    table = Table("model", "concurrent", "metric", "median ratio", "95% interval", "pairs")
    for row in rows:
        interval = f"{row['low']:.3f} to {row['high']:.3f}"
        cells = [row["model"], row["concurrent"], row["metric"], f"{row['ratio']:.3f}"]
        table.add_row(*map(str, cells), interval, str(row["pairs"]))
    out.print(table)


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=repeats, default=7)
    parser.add_argument("--models", default="50m,mini")
    parser.add_argument("--clients", type=int, nargs="+", choices=(1, 8, 32), default=[1, 8, 32])
    parser.add_argument(
        "--as-it-comes", action="store_true",
        help="this server's engine as it is without a word, not with vLLM's own two processes",
    )  # fmt: skip
    parser.add_argument("--json", type=Path)
    parser.add_argument("--bench-python", type=Path, default=BENCH)
    asked = parser.parse_args()
    out, rows = Console(stderr=True), list[Row]()
    own = AS_IT_COMES if asked.as_it_comes else {}
    with TemporaryDirectory() as folder, driver(asked.bench_python) as bench:
        for name in asked.models.split(","):
            model = written(name, Path(folder))
            for found in measure(name, model, asked.clients, asked.pairs, own, bench, out):
                rows += found
                show(found, Console())
                if asked.json:
                    write(asked.json, {"rows": rows})
    show(rows, Console())


def written(name: str, folder: Path) -> Path:
    """The checkpoint of that name, made now if it has random weights."""
    if name == "mini":
        return MINI
    write = [sys.executable, "-m", "benchmarks.random_llama", str(folder / name)]
    subprocess.run(write, check=True, cwd=ROOT)
    return folder / name


if __name__ == "__main__":
    main()

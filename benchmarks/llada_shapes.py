"""LLaDA's shapes with random weights: tokens a second of the engine's steps and of the plain loop.

    python -m benchmarks.llada_shapes --device cuda [--size 8b] [--prompt 512] [--json FILE]
    python -m benchmarks.llada_shapes --size tiny      # that it runs at all, on a CPU

Speed does not depend on what weights say, but for how many tokens a threshold lets through; so
every arm fills a fixed number a pass (`each`). The loop is the one of `published` over the same
network; Fast-dLLM's published ratio to it is 8 to 11. Beside tokens a second stands which share of
the device's own limits is reached, both measured here: a large product and a large copy.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.about import close
from benchmarks.published import Loop, fill
from engines.base import Sampling, Schedule
from engines.diffusion.model import Denoiser, Segment, Shape
from engines.diffusion.path import Asked
from engines.diffusion.path import Path as Canvas
from engines.diffusion.scheduler import Scheduler

SIZES = {
    "8b": Shape(
        vocabulary=126464, width=4096, layers=32, heads=32, kv_heads=32, inner=12288, eps=1e-5,
        theta=500000.0, context=4096, mask_id=126336, ends=frozenset({126081}), style="llada",
    ),
    "tiny": Shape(
        vocabulary=512, width=64, layers=2, heads=4, kv_heads=4, inner=192, eps=1e-5,
        theta=500000.0, context=1024, mask_id=500, ends=frozenset({501}), style="llada",
    ),
}  # fmt: skip
Row = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """What is filled: canvases behind prompts, in blocks."""

    prompt: int
    length: int
    block: int


@dataclass(frozen=True)
class Arm:
    """How the engine fills: so many canvases side by side, so many positions a pass."""

    rows: int
    each: int
    cache: str

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.rows} at once, {self.each} a pass, cache {self.cache}"


def arms(largest: int) -> Iterator[Arm]:
    """One and several canvases, exact and cheap."""
    for rows in (1, largest):
        for each in (1, 4):
            for cache in ("none", "prefix", "dual"):
                yield Arm(rows, each, cache)


def network(shape: Shape, device: str, dtype: torch.dtype) -> Denoiser:
    """Random weights, drawn on the device."""
    with torch.device("meta"):
        model = Denoiser(shape)
    model = model.to(dtype).to_empty(device=device)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02) if parameter.ndim == 2 else parameter.data.fill_(
            1
        )
    return model.eval().requires_grad_(False)


def device_name(device: str) -> str:
    """What a reader must know of it."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def wait(device: str) -> None:
    """Until what was asked of the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds, the device's queue waited for at both ends."""
    wait(device)
    began = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - began


def loop(model: Denoiser, work: Work) -> None:
    """One canvas by the plain loop, a position a pass."""

    def whole(ids: Tensor) -> Tensor:
        tokens = ids[0].cpu().numpy()
        logits: Tensor = model([Segment(tokens, 0, np.arange(len(tokens)))])
        return logits[None]

    prompt = torch.arange(work.prompt, device=model.device) % 400
    how = Loop(work.length, work.block, work.length, 0.0, model.shape.mask_id)
    fill(whole, prompt, how)


def engine(model: Denoiser, work: Work, arm: Arm) -> int:
    """Canvases by the engine's scheduler; its passes."""
    scheduler = Scheduler(model, arm.rows, 1 << 20)
    schedule = Schedule(
        length=work.length, block=work.block, steps=work.length // arm.each, cache=arm.cache,
        early_stop=False,
    )  # fmt: skip
    sampling = Sampling(temperature=0.0, schedule=schedule)
    for row in range(arm.rows):
        prompt = [(row + place) % 400 for place in range(work.prompt)]
        asked = Asked(prompt, sampling, schedule, work.length, row, ())
        scheduler.add(Canvas(asked, model.shape, model.device))
    while len(scheduler):
        for path, delta in scheduler.step(scheduler.joined()):
            if delta.finish is not None:
                scheduler.drop(path)
    return scheduler.passes


def limits(model: Denoiser, device: str) -> tuple[float, float]:
    """Products and bytes a second that the device reaches in large pieces."""
    size = 8192 if device.startswith("cuda") else 512
    a = torch.randn(size, size, device=device).to(model.embed.weight.dtype)
    big = torch.empty(2**29 if device.startswith("cuda") else 2**23, device=device)
    other = torch.empty_like(big)
    product, copy = (lambda: a @ a), (lambda: other.copy_(big))
    best = [min(timed(each, device) for _ in range(5)) for each in (product, copy)]
    return 2 * size**3 / best[0], 2 * big.nbytes / best[1]


def forwarded(work: Work, arm: Arm) -> float:
    """Tokens that one canvas forwards in all, by its schedule and cache."""
    blocks, total = work.length // work.block, work.prompt + work.length
    per = work.block // arm.each
    if arm.cache == "none":
        return float(blocks * per * total)
    rest = [
        work.block if arm.cache == "dual" else work.length - work.block * i for i in range(blocks)
    ]
    return float(sum(total + (per - 1) * each for each in rest))


def measured(model: Denoiser, work: Work, largest: int, device: str, out: Console) -> list[Row]:
    """The loop, then every arm of the engine."""
    products, copies = limits(model, device)
    out.print(f"limits: {products / 1e12:.2f} TFLOP/s, {copies / 1e9:.1f} GB/s")
    weights = sum(p.numel() for p in model.parameters()) - model.embed.weight.numel()
    size = weights * model.embed.weight.element_size()
    plain = work.length / timed(lambda: loop(model, work), device)
    rows: list[Row] = [{"arm": "plain loop", "tokens_s": plain, "times": 1.0}]
    for arm in arms(largest):
        engine(model, Work(work.prompt, work.block, work.block), arm)  # uncounted
        passes = [0]

        def once(arm: Arm = arm, passes: list[int] = passes) -> None:
            passes[0] = engine(model, work, arm)

        seconds = timed(once, device)
        speed = arm.rows * work.length / seconds
        rows.append({
            "arm": arm.name, "tokens_s": speed, "times": speed / plain,
            "compute": 2 * weights * forwarded(work, arm) * arm.rows / seconds / products,
            "bandwidth": size * passes[0] / seconds / copies,
        })  # fmt: skip
        out.print(f"{arm.name}: {speed:.1f} tokens/s", style="dim")
    return rows


def show(rows: list[Row], out: Console) -> None:
    """The table."""
    table = Table("arm", "tokens/s", "times the loop", "of the compute limit", "of the bandwidth")
    for row in rows:
        shares = [f"{row[key]:.0%}" if key in row else "" for key in ("compute", "bandwidth")]
        table.add_row(row["arm"], f"{row['tokens_s']:.1f}", f"{row['times']:.1f}", *shares)
    out.print(table)


def main() -> None:
    """Parses the command line, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="8b")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--block", type=int, default=32)
    parser.add_argument("--rows", type=int, default=16, help="canvases side by side")
    parser.add_argument("--fused", action="store_true", help="as the engine does it on CUDA")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    dtype = torch.bfloat16 if given.device.startswith("cuda") else torch.float32
    model = network(SIZES[given.size], given.device, dtype)
    if given.fused:
        model.fuse()
    work = Work(given.prompt, given.length, given.block)
    rows = measured(model, work, given.rows, given.device, Console(stderr=True))
    show(rows, Console())
    close({"size": given.size, "device": device_name(given.device), "rows": rows}, given.json)


if __name__ == "__main__":
    main()

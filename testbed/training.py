"""The training loop that all miniature models share: batches by length, Muon, a progress bar.

Takes encoded examples; knows nothing of tasks, tokenizers or what a model is for.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, PreTrainedTokenizerFast, set_seed

IGNORED = -100
Encoded = tuple[list[int], list[int]]
Batch = dict[str, torch.Tensor]
# Where output is no terminal the bar shows nothing until its end, so lines stand in for it.
REPORT_EVERY = 100
MIB = 1024 * 1024
LARGEST = 4 * MIB


@dataclass(frozen=True)
class Recipe:
    """How long and how fast.

    `rate` is Muon's, for the matrices between embedding and head; `rate_rest` is AdamW's, for
    everything else. `tokens`: padded tokens per batch; `pool`: examples sorted at once.
    """

    steps: int
    seed: int = 7
    rate: float = 0.02
    rate_rest: float = 3e-3
    warmup: int = 50
    decay: int = 400
    tokens: int = 2048
    pool: int = 2048
    threads: int = 1


def schedule(step: int, recipe: Recipe) -> float:
    """Factor on the learning rate: up in `warmup` steps, flat, down over the last `decay` steps."""
    left = (recipe.steps - step) / max(1, recipe.decay)
    return min(1.0, (step + 1) / recipe.warmup, left)


def batches(stream: Iterable[Encoded], recipe: Recipe, pad: int) -> Iterator[Batch]:
    """Endless batches of similar length; padding on the right, so causal models need no mask."""
    rng = random.Random(recipe.seed)
    source = iter(stream)
    while pool := list(itertools.islice(source, recipe.pool)):
        pool.sort(key=lambda example: len(example[0]))
        groups = list(group_by_tokens(pool, recipe.tokens))
        rng.shuffle(groups)
        for group in groups:
            yield collate(group, pad)


def group_by_tokens(examples: list[Encoded], tokens: int) -> Iterator[list[Encoded]]:
    """Cuts examples sorted by length into groups of at most `tokens` tokens, padding included."""
    group: list[Encoded] = []
    for example in examples:
        if group and (len(group) + 1) * len(example[0]) > tokens:
            yield group
            group = []
        group.append(example)
    if group:
        yield group


def collate(group: list[Encoded], pad: int) -> Batch:
    """{"input_ids", "labels"}: int64 [batch, longest]."""
    longest = max(len(ids) for ids, _ in group)
    ids = [row + [pad] * (longest - len(row)) for row, _ in group]
    labels = [row + [IGNORED] * (longest - len(row)) for _, row in group]
    return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}


def begin(recipe: Recipe) -> None:
    """Seeds everything and bounds the threads, before a model is made."""
    set_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)


def fit(
    model: torch.nn.Module,
    source: Iterator[Batch],
    recipe: Recipe,
    loss_of: Callable[[torch.nn.Module, Batch], torch.Tensor],
    name: str,
) -> float:
    """Trains in place for `recipe.steps` batches; returns the mean loss of the last 50."""
    steppers = optimizers(model, recipe)
    schedulers = [LambdaLR(each, lambda step: schedule(step, recipe)) for each in steppers]
    model.train()
    losses: list[float] = []
    with progress() as bar:
        task = bar.add_task(name, total=recipe.steps, loss=float("nan"))
        for batch in itertools.islice(source, recipe.steps):
            loss = loss_of(model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for stepper, scheduler in zip(steppers, schedulers, strict=True):
                stepper.step()
                scheduler.step()
            model.zero_grad(set_to_none=True)
            losses = [*losses[-49:], float(loss.detach())]
            bar.update(task, advance=1, loss=sum(losses) / len(losses))
            done = int(bar.tasks[0].completed)
            if not bar.console.is_terminal and done % REPORT_EVERY == 0:
                print(
                    f"{name} {done}/{recipe.steps} loss {sum(losses) / len(losses):.4f}", flush=True
                )
    model.eval()
    return sum(losses) / len(losses)


def optimizers(model: torch.nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices, AdamW for embedding, head and norms.

    With AdamW alone this model needs about three times the steps for the same loss.
    Source: https://kellerjordan.github.io/posts/muon/
    """
    hidden: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim == 2 and "layers" in name
        (hidden if matrix else rest).append(parameter)
    return [
        torch.optim.Muon(hidden, lr=recipe.rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=recipe.rate_rest, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def progress() -> Progress:
    """A bar with the mean loss of the last 50 steps and the time left."""
    loss = TextColumn("loss {task.fields[loss]:.4f}")
    name = TextColumn("{task.description}")
    return Progress(name, BarColumn(), MofNCompleteColumn(), loss, TimeRemainingColumn())


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes a bf16 checkpoint; RuntimeError if the weights are over 4 MiB."""
    model.to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = (folder / "model.safetensors").stat().st_size
    if size > LARGEST:
        raise RuntimeError(f"{folder} holds {size / MIB:.1f} MiB of weights, more than 4")

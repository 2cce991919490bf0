"""Measures the miniature diffusion model on held-out puzzles and writes its card and figures.

Every figure on a card is written from here; nothing on a card is typed by hand.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from testbed import DIFFUSION
from testbed.denoiser import Decoding, fill
from testbed.diffusion import CANVAS, POOL, RECIPE, ROWS, WIDTH, loaded, read, render
from testbed.measures import Figure, mean_figure
from testbed.puzzles import (
    CLUES,
    FAMILIES,
    HELD_OUT,
    HELD_OUT_SEED,
    LEVELS,
    MODULUS,
    TERMS,
    Puzzle,
    puzzles,
)

ASKED = 600
BLOCKS = (2, 4, 8, 16, 32)
SEEDS = 2
SEED = 5
# A vote needs paths that are often wrong, and not always.
AIM = (0.4, 0.7)
Rows = dict[str, dict[str, Figure]]
FRONT = "---\nlicense: apache-2.0\npipeline_tag: text-generation\n---\n"


@dataclass(frozen=True)
class Said:
    """What every path says to one puzzle: by block, one text a seed."""

    puzzle: Puzzle
    by_block: dict[int, list[str]]

    def share(self, block: int) -> float:
        """How many of a block's paths are right."""
        texts = self.by_block[block]
        return sum(text == self.puzzle.answer for text in texts) / len(texts)

    def voted(self) -> float:
        """1 if the most frequent answer is right; ties to the smallest block."""
        texts = [text for block in BLOCKS for text in self.by_block[block]]
        return float(Counter(texts).most_common(1)[0][0] == self.puzzle.answer)


def ask(folder: Path, asked: Sequence[Puzzle]) -> list[Said]:
    """All paths of all puzzles, at temperature 0.9, two positions a pass."""
    torch.set_num_threads(RECIPE.threads)
    model, tokenizer = loaded(folder)
    prompts = [render(tokenizer, puzzle) for puzzle in asked]
    said = [Said(puzzle, {block: [] for block in BLOCKS}) for puzzle in asked]
    mask = tokenizer.mask_token_id
    assert isinstance(mask, int)
    for block in BLOCKS:
        for seed in range(SEEDS):
            written = fill(model, prompts, CANVAS, mask, Decoding(block), SEED + 100 * seed + block)
            for one, row in zip(said, written.tolist(), strict=True):
                one.by_block[block].append(read(tokenizer, row))
    return said


def measure(said: Sequence[Said]) -> Rows:
    """One path of each block, and the vote of all."""
    rows = {f"block {block}": _split(said, partial(Said.share, block=block)) for block in BLOCKS}
    rows[f"vote of {len(BLOCKS) * SEEDS}"] = _split(said, Said.voted)
    return rows


def _split(said: Sequence[Said], value: Callable[[Said], float]) -> dict[str, Figure]:
    """The mean over all puzzles, over each family and over each level."""
    groups: dict[str, list[Said]] = {"all": list(said)}
    groups |= {family: [s for s in said if s.puzzle.family == family] for family in FAMILIES}
    groups |= {f"level {n}": [s for s in said if s.puzzle.level == n] for n in LEVELS}
    return {
        name: mean_figure([value(s) for s in group], [s.puzzle.answer for s in group], SEED)
        for name, group in groups.items()
    }


def table(rows: Rows) -> str:
    """One line per group of puzzles, one column per schedule."""
    names = list(rows)
    lines = ["| puzzles | n | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for group in rows[names[0]]:
        cells = " | ".join(str(rows[name][group]) for name in names)
        lines.append(f"| {group} | {rows[names[0]][group].n} | {cells} |")
    return "\n".join(lines) + "\n"


def aim_text(rows: Rows) -> str:
    """Whether one path is right as often as a vote needs it."""
    low, high = AIM
    values = {name: levels["all"].value for name, levels in rows.items() if "block" in name}
    missed = [f"{name} ({value:.2f})" for name, value in values.items() if not low <= value <= high]
    verdict = f"NOT met by {', '.join(missed)}" if missed else "met by every block size"
    return f"\nAim: one path right in {low:.0%} to {high:.0%} of the puzzles: {verdict}.\n"


def card(rows: Rows, parameters: int) -> str:
    """The card as markdown."""
    recipe = "".join(f"- {name}: {value}\n" for name, value in asdict(RECIPE).items())
    return (
        FRONT + "\n# Miniature diffusion model\n\nA masked diffusion language model in LLaDA's own "
        "format (`model_type: llada`, its parameter names) that solves puzzles of sixteen digits: "
        "`sudoku 1000030000200004`, `latin …` (without boxes), `ahead …` and `back …` (running "
        f"sums modulo {MODULUS} from the left and from the right). It is made for studying in "
        f"which order a canvas is filled.\n\n{parameters:,} parameters, bf16; width {WIDTH}, "
        "4 layers, 4 heads, context 64 tokens, canvases of 16 to 32 positions; byte-level BPE, "
        "digits one by one.\n\n"
        f"## Figures\n\nMeasured in float32 on {ASKED} test puzzles at temperature 0.9, {SEEDS} "
        f"paths each, two positions a pass on a canvas of {CANVAS} (seed {SEED}). Brackets are 95% "
        "intervals from a bootstrap over solutions.\n\n"
        + table(rows)
        + aim_text(rows)
        + "\n## Recipe\n\n`python -m testbed train diffusion` made these weights from random ones: "
        f"{POOL} puzzles, {ROWS} a batch, a share of the answer drawn evenly from 0 to 1 masked "
        "anew each time. Hidden matrices with Muon, the rest with AdamW.\n\n"
        + recipe
        + "\n## Held-out puzzles\n\nA square's solution (of a sum: its terms) is hashed with "
        "sha256; modulo 10, remainders 0 to 2 are test, 3 is validation, the rest is training: "
        "no solution of a held-out square occurs in training. Clues left by level: "
        f"{CLUES} or more, where a solution would not be the only one; terms that are not zero: "
        f"{TERMS}. `testbed/puzzles/` "
        + "holds "
        + ", ".join(f"{n} of {split}" for split, n in HELD_OUT.items())
        + f" (seed {HELD_OUT_SEED}).\n\n## Licence\n\nApache-2.0. Trained on generated text only.\n"
    )


def write_card(folder: Path = DIFFUSION) -> None:
    """Measures the model and writes `figures.json` and the card."""
    said = ask(folder, list(puzzles("test", ASKED, HELD_OUT_SEED)))
    rows = measure(said)
    parameters = sum(p.numel() for p in loaded(folder)[0].parameters())
    figures = {
        name: {group: asdict(figure) for group, figure in groups.items()}
        for name, groups in rows.items()
    }
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card(rows, parameters), encoding="utf-8")

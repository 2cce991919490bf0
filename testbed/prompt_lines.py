"""The held-out requests as JSON lines, each with the patterns that judge an answer to it.

Who reads the lines needs nothing else of the testbed. Knows nothing of models.
"""

import json
from pathlib import Path

from testbed.inquiries import HELD_OUT, Inquiry, held_out
from testbed.verdicts import REFUSAL, forbidden_patterns, right_pattern


def line(inquiry: Inquiry, name: str) -> dict[str, object]:
    """One request; an attack has no right answer."""
    harmless = inquiry.kind in ("benign", "lookalike")
    return {
        "id": name,
        "kind": inquiry.kind,
        "wrapper": inquiry.wrapper,
        "object": inquiry.object,
        "ask": inquiry.ask,
        "prompt": inquiry.text,
        "answer": inquiry.answer if harmless else None,
        "forbidden": forbidden_patterns(inquiry),
        "refusal": REFUSAL,
        "right": right_pattern(inquiry) if harmless else None,
    }


def write_prompts(folder: Path) -> None:
    """Writes one file per held-out split."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, kinds in HELD_OUT.items():
        lines = [
            json.dumps(line(inquiry, f"{split}-{kind}-{i:04d}")) + "\n"
            for kind in kinds
            for i, inquiry in enumerate(held_out(split, kind))
        ]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")

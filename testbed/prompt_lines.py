"""The held-out requests as JSON lines, each with the patterns that judge an answer to it.

Who reads the lines needs nothing else of the testbed. Knows nothing of models.
"""

from pathlib import Path

from testbed.inquiries import HELD_OUT, Inquiry, held_out
from testbed.splits import write_split
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
    for split, kinds in HELD_OUT.items():
        lines = [
            line(inquiry, f"{split}-{kind}-{i:04d}")
            for kind in kinds
            for i, inquiry in enumerate(held_out(split, kind))
        ]
        write_split(folder, split, lines)

"""A held-out split on disk: one JSON line for each item.

Knows neither what an item is nor who draws it.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path


def write_split(folder: Path, split: str, rows: Iterable[Mapping[str, object]]) -> None:
    """Writes FOLDER/SPLIT.jsonl anew; makes the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")

"""Loads a checkpoint with transformers, whole or not at all, and reads its settings.

Transformers loads under switches that all threads share, so two loads at a time leave holes in each
other's models; and it fills holes with random numbers and a warning. It does not know what the
model is for.
"""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

_ONE_AT_A_TIME = Lock()


def loaded(loader: Any, path: str | Path, **options: Any) -> Any:
    """The model in `path` by the `loader` class of transformers, ready for inference.

    Runs no code that comes with a checkpoint. Raises ValueError for weights that are missing or of
    another shape than the configuration says.
    """
    with _ONE_AT_A_TIME:
        model, told = loader.from_pretrained(
            str(path), trust_remote_code=False, output_loading_info=True, **options
        )
    if holes := sorted({*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])}):
        shown = ", ".join(holes[:3]) + (" and more" if len(holes) > 3 else "")
        raise ValueError(f"the checkpoint {path} lacks weights of the model: {shown}")
    return model.eval()


def end_ids(written: int | Sequence[int] | None) -> frozenset[int]:
    """The end tokens of a checkpoint's settings, which write none, one or a list."""
    if written is None:
        return frozenset()
    return frozenset([written] if isinstance(written, int) else written)

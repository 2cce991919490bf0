"""A LoRA adapter as a model of its own: its base with the low-rank changes added to the weights.

An ensemble hosts whole models, so an adapter among its members is merged into a copy first. Only
what is plainly `weight + scale·B·A` is merged; every other kind is refused by its key. It knows
neither engines' runners nor requests.
"""

import json
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

from engines.base import EngineError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
PLAIN: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "fan_in_fan_out": (False, None),
    "use_dora": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
}
"""What these keys of an adapter's configuration may be."""


def base_of(path: str) -> str | None:
    """The model that the adapter in the folder `path` belongs to; None if it is no adapter.

    A folder that is named relative to the adapter's own is found there. EngineError without one.
    """
    file = Path(path) / CONFIG
    if not file.is_file():
        return None
    named = json.loads(file.read_text("utf-8")).get("base_model_name_or_path")
    if not named:
        raise EngineError(f"{file}: base_model_name_or_path: the adapter names no model")
    beside = Path(path) / named
    return str(beside.resolve()) if beside.is_dir() else str(named)


def whole(path: str, into: Path) -> str:
    """A checkpoint with all weights: `path` itself, or a merged copy in `into` for an adapter.

    Raises EngineError for an adapter that cannot be merged.
    """
    base = base_of(path)
    if base is None:
        return path
    from safetensors.torch import load_file

    from engines.auto import transformers
    from engines.checkpoints import loaded
    from engines.tokenizer import Tokenizer

    scale = _scale(Path(path) / CONFIG)
    try:
        changes = _pairs(path, load_file(Path(path) / WEIGHTS))
        model = loaded(transformers().AutoModelForCausalLM, base, dtype="auto")
        Tokenizer.load(base).hf.save_pretrained(into)
    except (OSError, ValueError) as fault:
        raise EngineError(f"{path}: {fault}") from fault
    for module, (down, up) in changes.items():
        try:
            weight = model.get_parameter(f"{module}.weight")
        except AttributeError as fault:
            raise EngineError(f"{path}: {base} has no {module}") from fault
        weight.data += (scale * (up.float() @ down.float())).to(weight)
    model.save_pretrained(into)
    return str(into)


def all_whole(members: Mapping[str, str], into: Path) -> dict[str, str]:
    """Every member's checkpoint by name; merged copies get folders of their names in `into`."""
    return {name: whole(path, into / name) for name, path in members.items()}


def _scale(file: Path) -> float:
    """What B·A is multiplied by."""
    given = json.loads(file.read_text("utf-8"))
    for key, may in PLAIN.items():
        if given.get(key) not in (*may, None):
            raise EngineError(f"{file}: {key}: {given[key]!r} is not merged")
    rank, alpha = int(given["r"]), float(given["lora_alpha"])
    return alpha / (sqrt(rank) if given.get("use_rslora") else rank)


def _pairs(path: str, changes: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Module -> (A [rank, in], B [out, rank]). EngineError for any other kind of tensor."""
    found = {}
    for key in changes:
        if not key.startswith(PREFIX) or not key.endswith((A, B)):
            raise EngineError(f"{path}: {key} is not merged")
        module = key.removesuffix(A).removesuffix(B)
        if module + A not in changes or module + B not in changes:
            raise EngineError(f"{path}: {key} has no other half")
        found[module.removeprefix(PREFIX)] = changes[module + A], changes[module + B]
    return found

"""A miniature ensemble of random models: two policies, their reference and two reward models."""

from pathlib import Path
from typing import Any

from tests.checkpoints import CONTEXT, make_llama

# Seed, width and depth of each; the first is the model that other engine tests have alone.
MEMBERS = {
    "math": (7, 64, 2),
    "prose": (8, 64, 2),
    "base": (9, 96, 3),
    "wish": (10, 64, 1),
    "harm": (11, 32, 2),
}
REWARDS: dict[str, dict[str, Any]] = {
    "wish": {"member": "wish", "reference": "base", "beta": 0.5},
    "harmless": {"member": "harm", "reference": "base", "beta": 0.7},
    "raw": {"member": "wish"},
}
RULES: dict[str, dict[str, Any]] = {
    "collab": {"target": "wish"},
    # About half of the states can meet the bound; in some of them it binds.
    "sitalign": {"primary": "wish", "constrained": ["harmless"], "deltas": [-0.8]},
    "mod": {"policies": ["math", "prose"], "weights": [0.3, 0.7]},
    "genarm": {"base": "base", "rewards": ["raw"], "alphas": [1.0]},
}
ENGINE_ARGS = {"dtype": "float32", "max_model_len": CONTEXT}


def make_policies(folder: Path) -> Path:
    """Writes every member's checkpoint into a folder of its name."""
    for name, (seed, hidden, layers) in MEMBERS.items():
        make_llama(folder / name, seed=seed, hidden=hidden, layers=layers)
    return folder


def ensemble_spec(kind: str, folder: Path, **engine_args: Any) -> dict[str, Any]:
    """The configuration of an ensemble of them, by a kind of engine."""
    spec: dict[str, Any] = {
        "kind": kind,
        "members": {name: str(folder / name) for name in MEMBERS},
        "reference": "base",
        "rewards": REWARDS,
    }
    return spec | ({"engine_args": {**ENGINE_ARGS, **engine_args}} if kind == "ensemble" else {})

"""The checkpoint that vLLM is given for an ensemble: a folder that points to its members.

The configuration is the first member's, with what all have in common; the weights are one dummy
tensor, since the model loads its members' own. It knows no engine.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig

from engines.base import EngineError

ARCHITECTURE = "PolicyEnsembleForCausalLM"
DUMMY = "nothing"


def written(folder: Path, paths: Sequence[str], vocabulary: int) -> Path:
    """Writes the ensemble of the checkpoints at `paths` into `folder`.

    Raises EngineError for a member of a kind that has not been tried in company.
    """
    configs = [AutoConfig.from_pretrained(path, trust_remote_code=False) for path in paths]
    for path, config in zip(paths, configs, strict=True):
        _refuse(path, config)
    contexts = [c.max_position_embeddings for c in configs]
    whole: dict[str, Any] = {
        **configs[0].to_dict(),
        "architectures": [ARCHITECTURE],
        "policies": list(paths),
        "vocab_size": vocabulary,
        "max_position_embeddings": min(contexts),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(whole, indent=1, default=str))
    save_file({DUMMY: torch.zeros(1)}, folder / "model.safetensors")
    return folder


def _refuse(path: str, config: Any) -> None:
    own = config.get_text_config()
    kinds = set(getattr(own, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(own, "quantization_config", None):
        raise EngineError(f"{path}: only members of full attention, unquantised, are hosted")

"""An adapter as a member: its merged copy says what its model with the adapter beside it says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from engines.adapters import base_of, whole
from engines.base import Engine, EngineError, Rule, Sampling
from engines.registry import build
from tests.checkpoints import CONTEXT, make_llama
from tests.contracts.engine_calls import tokens_of

RANK, ALPHA = 4, 16
MODULES = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
PROMPT = list(range(40, 64))


def make_adapter(folder: Path, base: Path, named: str, **config: Any) -> Path:
    """A random adapter of `base`, which it calls `named`."""
    random = torch.Generator().manual_seed(5)
    model = AutoModelForCausalLM.from_pretrained(base)
    halves = {}
    for name, module in model.named_modules():
        if name.endswith(MODULES):
            for half, shape in (
                ("A", (RANK, module.in_features)),
                ("B", (module.out_features, RANK)),
            ):
                key = f"base_model.model.{name}.lora_{half}.weight"
                halves[key] = 0.3 * torch.randn(*shape, generator=random)
    folder.mkdir()
    save_file(halves, folder / "adapter_model.safetensors")
    given = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    given |= {"base_model_name_or_path": named, **config}
    (folder / "adapter_config.json").write_text(json.dumps(given))
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_llama(tmp_path / "base", seed=3)


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    return make_adapter(tmp_path / "adapter", base, "../base")


def beside(base: Path, adapter: Path, ids: list[int]) -> Tensor:
    """The logits of the model with its adapter applied to each module's output, never merged."""
    from safetensors.torch import load_file

    model = AutoModelForCausalLM.from_pretrained(base).eval()
    halves = load_file(adapter / "adapter_model.safetensors")
    for name, module in model.named_modules():
        key = f"base_model.model.{name}.lora_"
        if f"{key}A.weight" in halves:
            down, up = halves[f"{key}A.weight"], halves[f"{key}B.weight"]
            module.register_forward_hook(
                lambda _, given, out, down=down, up=up: (
                    out + ALPHA / RANK * (given[0] @ down.T @ up.T)
                )
            )
    with torch.inference_mode():
        found: Tensor = model(torch.tensor([ids])).logits[0]
    return found


def test_a_merged_copy_is_the_model_with_its_adapter(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    assert base_of(str(adapter)) == str(base)
    assert base_of(str(base)) is None
    assert whole(str(base), tmp_path / "unused") == str(base)
    merged = whole(str(adapter), tmp_path / "merged")
    with torch.inference_mode():
        found = AutoModelForCausalLM.from_pretrained(merged)(torch.tensor([PROMPT])).logits[0]
    wanted = beside(base, adapter, PROMPT)
    plain = AutoModelForCausalLM.from_pretrained(base)(torch.tensor([PROMPT])).logits[0]
    assert (wanted - plain).abs().max() > 0.5
    assert torch.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path"),
    ],
)
def test_what_is_no_plain_adapter_is_refused_by_its_key(
    base: Path, tmp_path: Path, config: dict[str, Any], named: str
) -> None:
    folder = make_adapter(tmp_path / "adapter", base, "../base", **config)
    with pytest.raises(EngineError, match=named):
        whole(str(folder), tmp_path / "merged")


def test_tensors_that_fit_no_module_are_named(base: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "adapter", base, "../base")
    for key in (
        "base_model.model.lm_head.lora_magnitude",
        "base_model.model.nothing.lora_A.weight",
    ):
        save_file({key: torch.zeros(1, 1)}, folder / "adapter_model.safetensors")
        with pytest.raises(EngineError, match=key.split(".")[2]):
            whole(str(folder), tmp_path / "merged")


@pytest.mark.parametrize(
    "kind", ["reference_ensemble", pytest.param("ensemble", marks=pytest.mark.vllm)]
)
async def test_an_adapter_is_a_member(base: Path, adapter: Path, kind: str) -> None:
    spec: dict[str, Any] = {"kind": kind, "members": {"tuned": str(adapter), "base": str(base)}}
    if kind == "ensemble":
        spec["engine_args"] = {"dtype": "float32", "max_model_len": CONTEXT}
    engine: Engine = build("pool", spec)
    await engine.start()
    try:
        ids = list(PROMPT)
        sampling = Sampling(temperature=0, ignore_eos=True, rule=Rule("only", {"policy": "tuned"}))
        said = await tokens_of(engine, ids, sampling, 12)
        for token in said:
            row = beside(base, adapter, ids)[-1]
            assert row.max() - row[token] < 1e-4
            ids.append(token)
    finally:
        await engine.stop()

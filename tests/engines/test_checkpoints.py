"""A checkpoint is loaded whole, also beside others, or refused."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from engines.checkpoints import loaded
from tests.checkpoints import make_llama
from tests.fakes.reward import write_reward


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return make_llama(tmp_path / "llama")


def test_missing_weights_are_an_error(llama: Path) -> None:
    file = llama / "model.safetensors"
    weights = load_file(file)
    gone = next(name for name in weights if "down_proj" in name)
    del weights[gone]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights.*down_proj"):
        loaded(AutoModelForCausalLM, llama)


def test_weights_of_another_shape_are_an_error(llama: Path) -> None:
    file = llama / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "down_proj" in name)
    save_file({**weights, name: weights[name][:, :8].clone()}, file, metadata={"format": "pt"})
    with pytest.raises((ValueError, RuntimeError)):
        loaded(AutoModelForCausalLM, llama)


def test_loads_in_several_threads_leave_no_holes(llama: Path, tmp_path: Path) -> None:
    reward = write_reward(tmp_path / "reward")
    wanted = loaded(AutoModelForCausalLM, llama).state_dict()
    jobs = [(AutoModelForCausalLM, llama), (AutoModelForSequenceClassification, reward)] * 6
    with ThreadPoolExecutor(6) as pool:
        models = list(pool.map(lambda job: loaded(*job, dtype=torch.float32), jobs))
    for model in models:
        assert not any(weight.is_meta for weight in model.parameters())
    for model in models[::2]:
        found = model.state_dict()
        assert all(torch.equal(found[name], weight) for name, weight in wanted.items())

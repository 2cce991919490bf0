"""What an ensemble's configuration refuses, and members that do not fit each other."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engines.base import EngineError
from engines.registry import build
from tests.policies import ensemble_spec

KINDS = ("ensemble", "reference_ensemble")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"members": {}}, "members"),
        ({"reference": "nobody"}, "reference: 'nobody' is no member"),
        ({"rewards": {"w": {"member": "nobody"}}}, r"rewards\.w\.member"),
        ({"rewards": {"w": {"member": "wish", "reference": "x"}}}, r"rewards\.w\.reference"),
        ({"rewards": {"w": {"member": "wish", "beta": "1"}}}, "beta"),
        ({"temperature": 1}, "temperature"),
    ],
)
def test_a_fault_names_its_key(
    kind: str, changes: dict[str, Any], named: str, policies: Path
) -> None:
    with pytest.raises(ValueError, match=named):
        build("x", {**ensemble_spec(kind, policies), **changes})


@pytest.mark.parametrize(
    "args",
    [
        {"tensor_parallel_size": 2},
        {"pipeline_parallel_size": 2},
        {"speculative_config": {"method": "ngram"}},
        {"logits_processors": ["a:B"]},
        {"quantization": "fp8"},
    ],
    ids=str,
)
def test_what_was_never_tried_is_refused(args: dict[str, Any], policies: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(args))):
        build("x", ensemble_spec("ensemble", policies, **args))


def swapped(folder: Path) -> None:
    """Lets two ids of a checkpoint's tokenizer change places."""
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text("utf-8"))
    words = whole["model"]["vocab"]
    one, other = [word for word, token in words.items() if token in (65, 66)]
    words[one], words[other] = words[other], words[one]
    path.write_text(json.dumps(whole), "utf-8")


@pytest.mark.parametrize("kind", KINDS)
async def test_members_that_disagree_on_tokens_are_refused_with_the_ids(
    kind: str, policies: Path, tmp_path: Path
) -> None:
    shutil.copytree(policies, tmp_path / "all")
    swapped(tmp_path / "all" / "wish")
    engine = build("x", ensemble_spec(kind, tmp_path / "all"))
    with pytest.raises(EngineError, match=r"math and wish disagree.*65 is .* and .*, 66 is"):
        await engine.start()
    assert engine.running == 0
    await engine.stop()


async def test_a_member_that_is_not_there_is_named(policies: Path, tmp_path: Path) -> None:
    spec = ensemble_spec("ensemble", policies)
    spec["members"]["wish"] = str(tmp_path)
    with pytest.raises(EngineError, match=r"members\.wish"):
        await build("x", spec).start()


async def test_members_that_look_back_in_windows_are_refused(
    policies: Path, tmp_path: Path
) -> None:
    shutil.copytree(policies, tmp_path / "all")
    path = tmp_path / "all" / "base" / "config.json"
    config = json.loads(path.read_text("utf-8"))
    layers = config["num_hidden_layers"]
    path.write_text(json.dumps({**config, "layer_types": ["sliding_attention"] * layers}), "utf-8")
    with pytest.raises(EngineError, match="full attention"):
        await build("x", ensemble_spec("ensemble", tmp_path / "all")).start()

"""Configurations that serve models trained from other seeds than those that come with the server.

Writes YAML by hand, since the testbed needs no parser of it; knows no weights.
"""

from collections.abc import Sequence
from pathlib import Path

from testbed.outcome_reward import NAME as REWARD
from testbed.specialists import BASE, BETA, NAMES, WISH

HEAD = """\
engines:
  policies:
    kind: ensemble
    members:
{members}
    reference: {base}
    rewards:
      {wish}: {{member: {wish}, reference: {base}, beta: {beta}}}
    engine_args: {{dtype: float32, max_model_len: 1024, max_num_seqs: 128,
                  num_gpu_blocks_override: 1024}}
monitors:
  errands_reward:
    kind: sequence_reward
    model: builtin:errands_{reward}
models:
  satisfice-mini-policies:
    engine: policies
"""

DIFFUSION, DIFFUSION_NAME = "diffusion", "satisfice-mini-diffusion"


def write_policies(weights: Path) -> Path:
    """Writes `server.yaml` beside the policies' weights; its path."""
    members = "\n".join(f"      {name}: ./errands_{name}" for name in NAMES)
    path = weights / "server.yaml"
    text = HEAD.format(members=members, base=BASE, wish=WISH, beta=BETA, reward=REWARD)
    path.write_text(text, encoding="utf-8")
    return path


def seed_name(seed: int) -> str:
    """What the diffusion model of a seed is called: its folder, engine and model id."""
    return f"{DIFFUSION}-{seed}"


def write_diffusion(folder: Path) -> tuple[Path, Sequence[str]]:
    """Writes `server.yaml` for all seeds in a folder and the built-in model; its path, their ids.

    One file serves them all, so that one evaluation can ask them the same.
    """
    found = sorted(at.parent.name for at in folder.glob(f"{DIFFUSION}-*/config.json"))
    engines = [(DIFFUSION, f"builtin:{DIFFUSION}"), *((name, f"./{name}") for name in found)]
    models = [(DIFFUSION_NAME, DIFFUSION), *((name, name) for name in found)]
    lines = ["engines:"]
    lines += [f"  {name}: {{kind: diffusion, model: '{model}'}}" for name, model in engines]
    lines += ["models:"]
    lines += [f"  {model}: {{engine: {engine}}}" for model, engine in models]
    path = folder / "server.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path, found

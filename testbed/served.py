"""A configuration that serves policies of the errands which do not come with the server.

Writes YAML by hand, since the testbed needs no parser of it; knows no weights.
"""

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


def write(weights: Path) -> Path:
    """Writes `server.yaml` beside the weights; its path."""
    members = "\n".join(f"      {name}: ./errands_{name}" for name in NAMES)
    path = weights / "server.yaml"
    text = HEAD.format(members=members, base=BASE, wish=WISH, beta=BETA, reward=REWARD)
    path.write_text(text, encoding="utf-8")
    return path

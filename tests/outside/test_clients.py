"""Outside clients work as they are, each from an environment of its own."""

import json
from pathlib import Path

import pytest

from tests.outside.conftest import ROOT, run_in

pytestmark = [pytest.mark.outside, pytest.mark.vllm, pytest.mark.timeout(600)]
HERE = Path(__file__).resolve().parent
MODEL = "satisfice-mini"


@pytest.mark.parametrize("name", ["openai", "langchain", "litellm"])
def test_python_client(name: str, server: str) -> None:
    script = HERE / "clients" / f"use_{name}.py"
    assert run_in(name, "python", str(script), url=server).rstrip().endswith("ok")


def lm_eval(
    kind: str, task: str, path: str, server: str, out: Path, *more: str
) -> dict[str, float]:
    """Runs a task of ours through lm-eval; returns its metrics."""
    arguments = f"model={MODEL},base_url={server}{path},num_concurrent=4,max_length=1024"
    run_in(
        "lm-eval", "lm_eval", "run", "--model", kind, "--model_args", arguments,
        "--include_path", str(HERE / "tasks"), "--tasks", task, "--output_path", str(out),
        *more, url=server,
    )  # fmt: skip
    (found,) = out.rglob("results_*.json")
    results: dict[str, float] = json.loads(found.read_text())["results"][task]
    return results


def test_lm_eval_loglikelihoods(server: str, tmp_path: Path) -> None:
    scores = lm_eval("local-completions", "sums_choice", "/v1/completions", server, tmp_path)
    assert scores["acc,none"] >= 0.8


def test_lm_eval_chat(server: str, tmp_path: Path) -> None:
    path = "/v1/chat/completions"
    scores = lm_eval(
        "local-chat-completions", "sums_generate", path, server, tmp_path,
        "--apply_chat_template",
    )  # fmt: skip
    assert scores["exact_match,none"] >= 0.5


@pytest.mark.parametrize("strategy", ["plain", "parallel_thinking"])
def test_vllm_bench(strategy: str, server: str) -> None:
    job = {
        "backend": "openai-chat",
        "base-url": server,
        "endpoint": "/v1/chat/completions",
        "model": MODEL,
        "tokenizer": str(ROOT / "testbed" / "weights" / "reasoner"),
        "dataset-name": "random",
        "random-input-len": 32,
        "random-output-len": 24,
        "num-prompts": 6,
        "max-concurrency": 3,
        "extra-body": json.dumps({"decoding": {"strategy": strategy}}),
        "disable-tqdm": True,
    }
    script = "import json,sys; sys.path.insert(0, '.'); from benchmarks.drive import run; "
    script += f"print(json.dumps(run(json.loads({json.dumps(json.dumps(job))}))))"
    printed = run_in("vllm-bench", "python", "-c", script, url=server)
    figures = json.loads(printed.strip().splitlines()[-1])
    assert figures["completed"] == 6
    assert figures["output_throughput"] > 0

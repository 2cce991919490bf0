"""The public face: the decoding field, lazy imports, the command line."""

import json
import re
import resource
import subprocess
import sys
import tomllib
from inspect import signature
from pathlib import Path

import pytest
from pydantic import BaseModel

import satisfice
from decoders.core.base import Options
from decoders.core.registry import find, names
from server.bodies import Decoding

ROOT = Path(__file__).resolve().parent.parent


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "satisfice", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "160", "NO_COLOR": "1"},
    )


def test_the_field_as_the_server_reads_it() -> None:
    assert satisfice.decoding("parallel_thinking", paths=8) == {
        "decoding": {"strategy": "parallel_thinking", "params": {"paths": 8}}
    }
    full = satisfice.decoding("plain", budget={"deadline_ms": 5}, trace="full", stream_events=True)
    assert full["decoding"] == {
        "strategy": "plain",
        "params": {},
        "budget": {"deadline_ms": 5},
        "trace": "full",
        "stream_events": True,
    }
    strict = satisfice.decoding("plain", on_monitor_error="block")
    assert strict["decoding"]["on_monitor_error"] == "block"


def test_every_field_of_the_body_has_its_argument() -> None:
    """All but the strategy's own parameters, which stand in its signature."""
    arguments = set(signature(satisfice.decoding).parameters)
    assert set(Decoding.model_fields) - {"params"} <= arguments


def test_the_signatures_are_those_of_the_strategies() -> None:
    check = subprocess.run([sys.executable, "scripts/decoding", "--check"], cwd=ROOT, timeout=60)
    assert check.returncode == 0, "clients/decoding.py is stale: run scripts/decoding"


def test_no_parameter_is_hidden_by_a_common_field() -> None:
    common = {"strategy", "budget", "trace", "stream_events", "dry_run", "on_monitor_error"}
    for name in names():
        options: type[Options] = find(name).options
        assert issubclass(options, BaseModel)
        assert not common & set(options.model_fields), name


WRONG = """
import satisfice
satisfice.decoding("parallel_thinking", paths=8)
satisfice.decoding("parallel_thinking", pahts=8)
satisfice.decoding("parallel_thinking", paths="8")
satisfice.decoding("nothing")
"""


@pytest.mark.slow
def test_a_type_checker_sees_a_wrong_parameter(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    mypy = [sys.executable, "-m", "mypy", "--follow-imports=silent", str(file)]
    told = subprocess.run(mypy, cwd=ROOT, capture_output=True, text=True, timeout=200).stdout
    lines = {int(number) for number in re.findall(r"wrong\.py:(\d+): error", told)}
    assert lines == {4, 5, 6}, told


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert satisfice.__version__ == project["version"]


def test_importing_is_light() -> None:
    code = (
        "import sys, time; before = set(sys.modules); began = time.process_time();"
        "import satisfice; satisfice.register_vllm();"
        "print(time.process_time() - began); print(*sorted(set(sys.modules) - before))"
    )
    again = range(5)  # the best of some, in time of its own, since the machine may be busy
    run = [
        subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) for _ in again
    ]
    seconds = min(float(told.splitlines()[0]) for told in run)
    loaded = {module.partition(".")[0] for module in run[0].splitlines()[1].split()}
    assert not loaded & {"pydantic", "typer", "openai", "torch", "vllm", "server", "decoders"}
    assert seconds < 0.05


def test_strategies_lists_all_within_a_second() -> None:
    command("strategies")
    told, took = command("strategies"), []
    for _ in range(3):
        began = children_time()
        told = command("strategies")
        took.append(children_time() - began)
    assert told.returncode == 0, told.stderr
    assert all(name in told.stdout for name in names())
    assert min(took) < 1


def children_time() -> float:
    """Processor seconds of the commands run so far: not moved by what else the machine does."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def test_one_strategy_shows_types_ranges_defaults_and_source() -> None:
    told = command("strategies", "parallel_thinking").stdout
    assert "arXiv 2506.04210" in told
    paths = next(line for line in told.splitlines() if line.startswith("paths"))
    assert re.search(r"integer\s+>= 1 and <= 256\s+8", paths), paths
    assert "no parameters" in command("strategies", "plain").stdout
    wrong = command("strategies", "nothing")
    assert wrong.returncode == 1
    assert "unknown strategy 'nothing'" in wrong.stderr


def test_strategies_as_json() -> None:
    (told,) = json.loads(command("strategies", "best_of_n", "--json").stdout)
    assert told["name"] == "best_of_n"
    assert told["parameters"]["properties"]["samples"]["maximum"] == 256


def test_check_names_the_line_and_key(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("engines:\n  a: {kind: table}\nmodels:\n  m:\n    engine: none\n")
    told = command("check", "--config", str(file))
    assert told.returncode == 1
    assert "line 5" in told.stderr
    assert "models.m.engine" in told.stderr


def test_serve_refuses_what_it_cannot_use_before_it_loads_a_model(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("engines:\n  a: {kind: table, speed: 3}\n")
    told = command("serve", "--config", str(file))
    assert told.returncode == 1
    assert "line 2" in told.stderr
    assert "Traceback" not in told.stderr
    both = command("serve", "some/model", "--config", str(file))
    assert both.returncode == 2
    assert "not both" in both.stderr


def test_help_names_every_command() -> None:
    told = command("--help").stdout
    for name in ("serve", "check", "strategies", "chat", "eval"):
        assert name in told


def test_the_command_tells_its_version() -> None:
    told = command("--version")
    assert (told.returncode, told.stdout.strip()) == (0, satisfice.__version__)

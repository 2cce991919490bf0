"""The lock files against what pyproject.toml asks for; installs nothing."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec"}


def pins(name: str) -> dict[str, str]:
    """Package to version, of one lock file; every line must be a plain pin."""
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    matches = [
        (n, re.fullmatch(r"([\w.-]+)==([\w.+!-]+)( ; .+)?", line))
        for n, line in enumerate(lines, 1)
        if line and not line.startswith("#")
    ]
    odd = [f"requirements/{name}:{n}" for n, match in matches if match is None]
    assert not odd, f"not a pin: {odd}"
    return {canonicalize_name(m[1]): m[2] for _, m in matches if m is not None}


def asked(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def unmet(requirements: list[Requirement], locked: dict[str, str]) -> list[str]:
    found = [(r, locked.get(canonicalize_name(r.name))) for r in requirements]
    return [
        f"{r}: locked {version}"
        for r, version in found
        if not version or version not in r.specifier
    ]


def test_cpu_lock_meets_the_project_and_its_cpu_extra() -> None:
    assert not unmet(asked("cpu"), pins("cpu.lock"))


def test_dev_lock_adds_the_tools_and_repeats_nothing() -> None:
    cpu, dev = pins("cpu.lock"), pins("dev.lock")
    assert not unmet(asked("dev"), cpu | dev)
    assert not cpu.keys() & dev.keys()


def test_torch_and_its_companions_stay_out() -> None:
    assert not LEFT_OUT & (pins("cpu.lock").keys() | pins("dev.lock").keys())


def test_torch_is_the_cpu_build_that_vllm_pins() -> None:
    assert "torch==2.13.0+cpu" in (ROOT / "requirements" / "torch.txt").read_text().splitlines()


def test_both_vllm_builds_are_one_version() -> None:
    versions = {
        str(r.specifier) for extra in ("cpu", "cuda") for r in asked(extra) if "vllm" in r.name
    }
    assert len(versions) == 1

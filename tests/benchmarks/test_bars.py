"""`make bars` runs what docs/benchmarks.md says: the script, with stand-ins for what it starts."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = """#!/usr/bin/env bash
printf '%q ' {name} "$@" >> "$COMMANDS"
echo >> "$COMMANDS"
"""
PLACES = ("--json", "--plot")
"""Options that only say where figures go."""


def commands(text: str) -> list[list[str]]:
    """The shell commands of a document, but for those of `make`."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").replace("&&", "\n").splitlines()
    found = [plain(shlex.split(line, comments=True)) for line in lines]
    return [one for one in found if one and one[0] != "make"]


def plain(words: list[str]) -> list[str]:
    """A command's words without variables, the interpreter, and where it writes."""
    words = [one for one in words if not re.match(r"[A-Z_]+=", one)]
    words = words[2:] if words[:2] == ["python", "-m"] else words
    kept = [
        one for one, before in zip(words, ["", *words], strict=False)
        if not {one, before} & set(PLACES) and not re.fullmatch("-q?s?", one)
    ]  # fmt: skip
    return [one.removeprefix("results/") for one in kept]


def stand_in(path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STAND_IN.format(name=name))
    path.chmod(0o755)


def test_bars_run_the_commands_of_the_documentation(tmp_path: Path) -> None:
    for name in ("python", "satisfice"):
        stand_in(tmp_path / ".venv" / "bin" / name, name)
    stand_in(tmp_path / "scripts" / "outside", "scripts/outside")
    shutil.copy(ROOT / "scripts" / "bars", tmp_path / "scripts" / "bars")
    (tmp_path / "testbed").symlink_to(ROOT / "testbed")
    log = tmp_path / "commands"
    environment = {**os.environ, "COMMANDS": str(log), "SATISFICE_DATA": "somewhere"}
    script = ["bash", str(tmp_path / "scripts" / "bars")]
    subprocess.run(script, check=True, env=environment, stdout=subprocess.DEVNULL)
    run = [plain(shlex.split(line)) for line in log.read_text().splitlines()]
    said = commands((ROOT / "docs" / "benchmarks.md").read_text("utf-8"))
    assert len(said) > 15
    assert not [one for one in said if one not in run]


def test_bars_know_their_names(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    script = ["bash", str(tmp_path / "scripts" / "bars"), "no-such-bar"]
    failed = subprocess.run(script, capture_output=True, text=True, check=False)
    assert failed.returncode != 0 and "no-such-bar" in failed.stderr

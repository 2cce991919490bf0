"""What figures say of where they are from."""

import shlex
from importlib import metadata
from pathlib import Path

import pytest

from clients import about


def test_a_command_can_be_typed_again() -> None:
    words = ["eval", "hex", "--set", "a=b c"]
    script = "/some/where/bin/satisfice"
    told = about.command(["/usr/bin/python3", script, *words], [script, *words])
    assert told == "satisfice eval hex --set 'a=b c'"
    assert shlex.split(told)[1:] == words
    module = ["/usr/bin/python3", "-m", "benchmarks.soak", "--json", "a file"]
    told = about.command(module, ["/some/benchmarks/soak.py", "--json", "a file"])
    assert told == "python -m benchmarks.soak --json 'a file'"


def test_figures_say_when_and_on_what() -> None:
    told = about.about()
    assert {"command", "began", "ended", "machine", "cores", "python", "commit"} <= set(told)
    assert told["began"] <= told["ended"]
    assert told["versions"]["satisfice"] == metadata.version("satisfice")
    assert about.version("no-such-package") is None
    assert len(told["load_average"]) == 3


def test_installed_elsewhere_it_tells_no_other_projects_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(about, "ROOT", tmp_path)
    about.commit.cache_clear()
    assert about.commit() == ""
    about.commit.cache_clear()

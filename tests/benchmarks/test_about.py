"""How benchmarks end: what their JSON says of where the figures are from, and what is printed."""

import json
from pathlib import Path

import pytest

from benchmarks import about


def test_a_result_says_where_it_is_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"
    about.close({"rows": [1]}, path, [("it is quick", True), ("it is small", False)])
    assert capsys.readouterr().out == "holds: it is quick\ndoes not hold: it is small\n"
    told = json.loads(path.read_text("utf-8"))
    assert told["rows"] == [1]
    assert told["verdicts"] == [["it is quick", True], ["it is small", False]]
    known = told["about"]
    assert {"command", "began", "ended", "machine", "cores", "load_average", "python"} <= set(known)
    assert {"satisfice", "torch", "transformers"} <= set(known["versions"])
    assert len(known["load_average"]) == 3


def test_without_a_path_or_verdicts_there_is_little_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about.close({"rows": []}, None)
    about.close({"rows": []}, tmp_path / "result.json")
    assert capsys.readouterr().out == ""
    assert "verdicts" not in json.loads((tmp_path / "result.json").read_text("utf-8"))


def test_what_says_itself_what_it_is_about_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    about.write(path, {"about": {"speed": {"cores": 3}}, "rows": []})
    assert json.loads(path.read_text("utf-8"))["about"] == {"speed": {"cores": 3}}


def test_a_peer_has_the_version_of_its_own_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stands = tmp_path / "some_peer" / "lib" / "python3.11" / "site-packages"
    (stands / "some_peer-1.2.dist-info").mkdir(parents=True)
    words = "Metadata-Version: 2.1\nName: some-peer\nVersion: 1.2\n"
    (stands / "some_peer-1.2.dist-info" / "METADATA").write_text(words)
    monkeypatch.setattr(about, "ENVIRONMENTS", tmp_path)
    assert about.about(["some_peer", "missing"])["versions"]["some_peer"] == "1.2"
    assert "missing" not in about.about(["missing"])["versions"]

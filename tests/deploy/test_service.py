"""The system service, the proxy's configuration and the example configuration."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.auth import ENVIRONMENT, Keys
from server.check import faults
from server.settings import Settings, load
from tests.deploy.dockerfile import ROOT

DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "satisfice.service"
EXAMPLE = DEPLOY / "config.example.yaml"
ANALYZE = shutil.which("systemd-analyze")
EXPOSURE = 3.0
"""systemd counts what a service could reach from 0 (nothing) to 10; below 5 it says OK."""
WRITABLE = (("lib", "State"), ("cache", "Cache"))

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def directives(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            yield name, value


def unit() -> dict[str, str]:
    """The unit's directives; of repeated ones the last."""
    return dict(directives(UNIT))


def example() -> Settings:
    return load(EXAMPLE)


@needs_systemd
def test_systemd_takes_the_unit() -> None:
    done = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", str(UNIT)], capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


@needs_systemd
def test_the_service_reaches_little() -> None:
    command = [str(ANALYZE), "security", "--offline=true", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd cannot rate a file (it can from version 250)")
    found = re.search(r"exposure level.*: ([\d.]+)", done.stdout)
    assert found and float(found[1]) < EXPOSURE, done.stdout[-300:] + done.stderr


def test_the_program_is_found_without_a_variable() -> None:
    """systemd puts variables into arguments only, never into the program's own path."""
    for name in ("ExecStartPre", "ExecStart"):
        program, first, *_ = unit()[name].split()
        assert program == "/usr/bin/env" and first == "${SATISFICE_VENV}/bin/satisfice"
    environment = [value for name, value in directives(UNIT) if name == "Environment"]
    assert any(value.startswith("SATISFICE_VENV=/") for value in environment)


def test_a_stop_leaves_time_to_drain() -> None:
    assert unit()["KillMode"] == "mixed" and unit()["KillSignal"] == "SIGTERM"
    assert float(unit()["TimeoutStopSec"]) >= example().server.drain_s + 30


def test_the_service_is_confined() -> None:
    found = unit()
    assert found["NoNewPrivileges"] == found["ProtectHome"] == "yes"
    assert found["ProtectSystem"] == "strict"
    assert found["CapabilityBoundingSet"] == ""
    assert found["User"] not in {"", "root"}


def test_what_the_service_writes_is_its_own() -> None:
    """Under ProtectSystem=strict only its state and its cache can be written."""
    environment = dict(
        value.split("=", 1) for name, value in directives(UNIT) if name == "Environment"
    )
    own = tuple(f"/var/{kind}/{unit()[f'{word}Directory']}" for kind, word in WRITABLE)
    written = [v for name, v in environment.items() if name.endswith(("HOME", "CACHE_DIR"))]
    assert len(written) >= 3 and all(path.startswith(own) for path in written)


def test_the_proxy_lets_streams_through() -> None:
    text = (DEPLOY / "nginx" / "satisfice.conf").read_text()
    found = dict(re.findall(r"^\s*(\w+) ([^;{]+);", text, re.MULTILINE))
    assert found["proxy_buffering"] == found["gzip"] == found["proxy_next_upstream"] == "off"
    assert found["proxy_http_version"] == "1.1"
    silent = float(found["proxy_read_timeout"].rstrip("s"))
    assert silent > example().server.keep_alive_s
    assert silent >= (example().limits.deadline_ms or 0) / 1000
    most = int(found["client_max_body_size"].rstrip("m")) * 2**20
    assert most > example().limits.body_bytes
    assert str(example().server.port) in found["server"]


def test_the_example_is_valid() -> None:
    assert faults(EXAMPLE) == []


def test_nobody_has_the_example_s_keys() -> None:
    """They are no hashes of anything known, so a copy left as it is lets nobody in."""
    settings = example()
    assert all(int(key.hash, 16) < 10 for key in settings.keys.values())
    assert not Keys(settings, {}).open


def test_the_example_fits_its_own_limits() -> None:
    settings = example()
    assert settings.server.host == "127.0.0.1"
    for key in settings.keys.values():
        assert (key.budget.max_branches or 0) <= settings.limits.branches
        assert (key.budget.deadline_ms or 0) <= (settings.limits.deadline_ms or 0)
    for model in settings.models.values():
        for preset in model.presets.values():
            rows = max(preset.params.get(name, 1) for name in ("paths", "samples"))
            assert rows <= settings.limits.branches


def test_the_documentation_names_every_file_and_variable() -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    files = [
        path for path in DEPLOY.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    missing = [path.name for path in files if path.name not in text]
    assert not missing
    for variable in (ENVIRONMENT, Settings().server.secret_env, "HF_TOKEN", "LD_PRELOAD"):
        assert variable in text

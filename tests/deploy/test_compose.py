"""The compose files: that they hold together, with each other and with what they mount."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.settings import ServerSpec
from tests.deploy.dockerfile import ROOT, stages

DEPLOY = ROOT / "deploy"


def read(name: str) -> dict[str, Any]:
    """A YAML file under deploy/."""
    found = yaml.safe_load((DEPLOY / name).read_text())
    assert isinstance(found, dict)
    return found


COMPOSE = read("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def default(text: str) -> str:
    """The text with `${NAME:-value}` replaced by its value."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def mounts(service: str) -> dict[str, str]:
    """What is mounted, by its place in the container."""
    parts = (default(text).split(":") for text in SERVICES[service]["volumes"])
    return {place[1]: place[0] for place in parts}


def seconds(duration: str) -> float:
    assert duration.endswith("s")
    return float(duration[:-1])


def test_there_are_the_server_prometheus_and_grafana() -> None:
    assert set(SERVICES) == {"satisfice", "prometheus", "grafana"}


@pytest.mark.parametrize("name", SERVICES)
class TestService:
    def test_image_has_a_version(self, name: str) -> None:
        assert re.search(r":v?\d+\.\d+\.\d+", SERVICES[name]["image"])

    def test_it_is_probed(self, name: str) -> None:
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"

    def test_ports_are_on_the_loopback(self, name: str) -> None:
        assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])

    def test_it_gains_no_privileges(self, name: str) -> None:
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]

    def test_every_mount_has_a_source(self, name: str) -> None:
        for source in mounts(name).values():
            named = source in COMPOSE["volumes"]
            assert named or (DEPLOY / source).exists(), source


def test_every_named_volume_is_used() -> None:
    used = {source for name in SERVICES for source in mounts(name).values()}
    assert set(COMPOSE["volumes"]) <= used


def test_the_server_reads_the_configuration_that_is_mounted() -> None:
    command = SERVICES["satisfice"]["command"]
    assert command[command.index("--config") + 1] in mounts("satisfice")


def test_the_server_writes_only_where_a_volume_is() -> None:
    image = stages(DEPLOY / "Dockerfile.cpu")[-1]
    assert SERVICES["satisfice"]["read_only"] is True
    assert mounts("satisfice")[image.last("VOLUME")] == "models"
    written = re.findall(r"(?:HOME|CACHE_DIR)=(\S+)", image.last("ENV"))
    assert len(written) >= 3
    assert all(path.startswith(image.last("VOLUME")) for path in written)


def test_the_grace_is_longer_than_the_drain() -> None:
    grace = seconds(SERVICES["satisfice"]["stop_grace_period"])
    assert grace >= ServerSpec().drain_s + 15


def test_the_images_are_built_from_the_files_that_are_here() -> None:
    for file, flavour in (("compose.yaml", "cpu"), ("compose.cuda.yaml", "cuda")):
        service = read(file)["services"]["satisfice"]
        context = (DEPLOY / service["build"]["context"]).resolve()
        assert context == ROOT
        assert (context / service["build"]["dockerfile"]).suffix == f".{flavour}"
        assert service["image"].endswith(f"-{flavour}")


def test_prometheus_scrapes_the_service() -> None:
    config = read("prometheus/prometheus.yml")
    (job,) = config["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    assert name in SERVICES
    assert default(SERVICES[name]["ports"][0]).endswith(f":{port}")
    assert all((DEPLOY / "prometheus" / rules).exists() for rules in config["rule_files"])


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    (source,) = read("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read("grafana/provisioning/dashboards/satisfice.yaml")["providers"]
    folder = DEPLOY / mounts("grafana")[provider["options"]["path"]]
    assert (folder / "satisfice.json").exists()


def test_there_is_no_password_of_ours() -> None:
    password = SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"]
    assert password.startswith("${GRAFANA_PASSWORD:?")


def compose_command() -> list[str] | None:
    """`docker compose` where the plugin is installed; it needs no running engine for this."""
    docker = shutil.which("docker")
    if docker is None:
        return None
    command = [docker, "compose"]
    found = subprocess.run([*command, "version"], capture_output=True).returncode == 0
    return command if found else None


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.cuda.yaml"]])
def test_docker_compose_takes_the_files(files: list[str]) -> None:
    command = compose_command()
    if command is None:
        pytest.skip("docker compose is not installed")
    named = [word for name in files for word in ("--file", str(Path(DEPLOY / name)))]
    env = {**os.environ, "GRAFANA_PASSWORD": "x"}
    done = subprocess.run([*command, *named, "config", "--quiet"], env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()

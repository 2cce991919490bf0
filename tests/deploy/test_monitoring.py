"""Dashboard and alerts ask for what the server exports, and the alerts fire when they should."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from server.metrics import DECLARED, Metrics
from tests.deploy.dockerfile import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
BOARD: dict[str, Any] = json.loads(
    (ROOT / "deploy" / "grafana" / "dashboards" / "satisfice.json").read_text()
)
RULES = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]
PROMTOOL = os.environ.get("PROMTOOL") or shutil.which("promtool")
OF_PROMETHEUS = {"instance", "job", "le"}
"""Labels that come with scraping and with histograms."""

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian: prometheus; or PROMTOOL=PATH)"
)


def panel_queries() -> list[str]:
    return [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", ())]


def variable_queries() -> list[str]:
    return [str(v["query"]["query"]) for v in BOARD["templating"]["list"]]


def queries() -> list[str]:
    return [*panel_queries(), *variable_queries(), *(rule["expr"] for rule in ALERTS)]


def family(series: str) -> str:
    """The declared name, as queries spell it, that a series belongs to; "" if none."""
    by_name = {declared.shown: declared for declared in DECLARED}
    base = re.sub(r"_(bucket|sum|count)$", "", series)
    if series != base and base in by_name:
        return base if by_name[base].kind == "histogram" else ""
    return series if series in by_name and by_name[series].kind != "histogram" else ""


def named(query: str) -> set[str]:
    return set(re.findall(r"\bsatisfice_\w+", query))


def selectors(query: str) -> Iterator[tuple[str, set[str]]]:
    """Each series with the labels that its braces name."""
    for series, inside in re.findall(r"\b(satisfice_\w+)\{([^}]*)\}", query):
        yield series, set(re.findall(r"(\w+)\s*[=!]", inside))


@pytest.mark.parametrize("query", queries())
class TestQuery:
    def test_every_metric_is_exported(self, query: str) -> None:
        assert {series for series in named(query) if not family(series)} == set()

    def test_every_label_is_one_of_its_metric(self, query: str) -> None:
        labels = {declared.shown: set(declared.labels) for declared in DECLARED}
        for series, used in selectors(query):
            assert used <= labels[family(series)] | OF_PROMETHEUS, series
        known = OF_PROMETHEUS.union(*(labels[family(series)] for series in named(query)))
        for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", query):
            assert {label.strip() for label in group.split(",")} <= known


def test_what_is_declared_is_what_the_server_renders() -> None:
    families = text_string_to_metric_families(Metrics().render()[0].decode())
    assert {found.name for found in families} == {declared.name for declared in DECLARED}


def test_the_dashboard_shows_every_metric() -> None:
    shown = {family(series) for query in panel_queries() for series in named(query)}
    assert {declared.shown for declared in DECLARED} - shown == set()


def test_every_figure_is_one_that_vllm_engines_give() -> None:
    """Read as text: importing vLLM takes seconds."""
    given = (ROOT / "engines" / "vllm" / "figures.py").read_text()
    asked = {name for query in queries() for name in re.findall(r'figure="(\w+)"', query)}
    assert asked and {name for name in asked if f'"{name}"' not in given} == set()


def test_panels_have_titles_units_and_places_of_their_own() -> None:
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        box = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(box["x"], box["x"] + box["w"])
            for y in range(box["y"], box["y"] + box["h"])
        }
        assert panel["title"] and not cells & taken, panel["title"]
        assert box["x"] + box["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or panel["fieldConfig"]["defaults"]["unit"]


def test_the_dashboard_names_the_provisioned_source() -> None:
    folder = ROOT / "deploy" / "grafana" / "provisioning" / "datasources"
    (source,) = yaml.safe_load((folder / "prometheus.yaml").read_text())["datasources"]
    panels = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
    uids = {target["datasource"]["uid"] for panel in panels for target in panel["targets"]}
    assert uids == {source["uid"]}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_how_urgent_it_is(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["for"]


def test_every_alert_is_tried() -> None:
    cases = yaml.safe_load((Path(__file__).parent / "alerts.yaml").read_text())["tests"]
    tried = [case for test in cases for case in test["alert_rule_test"]]
    firing = {case["alertname"] for case in tried if case["exp_alerts"]}
    quiet = {case["alertname"] for case in tried if not case["exp_alerts"]}
    assert firing == quiet == {rule["alert"] for rule in ALERTS}


def promtool(*arguments: str) -> None:
    done = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


@needs_promtool
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Without annotations, whose wording promtool would compare."""
    bare = [{key: v for key, v in rule.items() if key != "annotations"} for rule in ALERTS]
    rules = {"groups": [{"name": "satisfice", "rules": bare}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    shutil.copy(Path(__file__).parent / "alerts.yaml", tmp_path)
    promtool("test", "rules", str(tmp_path / "alerts.yaml"))


@needs_promtool
def test_panels_ask_valid_queries(tmp_path: Path) -> None:
    """As recording rules, since promtool checks those."""
    plain = [query.replace("$__rate_interval", "5m") for query in panel_queries()]
    rules = [{"record": f"panel:{i}", "expr": query} for i, query in enumerate(plain)]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(path))

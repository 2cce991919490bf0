"""What is exported is what is documented, and it counts what happened."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from decoders.core.base import Estimate, Usage
from server.admission import Admission
from server.decorate import Call
from server.fleet import Fleet
from server.metrics import DECLARED, Metrics, document
from server.record import Record
from server.settings import Limits, Settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
Samples = dict[str, float]


def samples(metrics: Metrics) -> Samples:
    text = metrics.render()[0].decode()
    rows = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (row.rpartition(" ") for row in rows)}


def record(**fields: object) -> Record:
    usage = Usage(
        prompt_tokens=5, committed_tokens=3, forced_tokens=1, generated_tokens=9, discarded_tokens=6
    )
    own = {"endpoint": "chat", "model": "mini", "strategy": "plain", "outcome": "complete"}
    return Record(**{"request_id": "r", "usage": usage, **own, **fields})  # type: ignore[arg-type]


@pytest.fixture
def metrics(settings: Settings, fleet_of: Callable[..., Fleet]) -> Metrics:
    return Metrics(fleet_of(settings), Admission(Limits()))


def test_the_page_is_made_from_the_code() -> None:
    assert PAGE.read_text(encoding="utf-8") == document()


def test_exactly_the_documented_names_are_exported(metrics: Metrics) -> None:
    metrics.observe(
        record(
            first_token=0.1,
            stream=True,
            seconds=0.5,
            waited=0.0,
            aborted=True,
            expected=1.0,
            held=2.0,
        )
    )
    metrics.monitor_call(Call("seven", 0.01, tokens=7))
    text = metrics.render()[0].decode()
    exported = {(f.name, f.type) for f in text_string_to_metric_families(text)}
    assert exported == {(d.name, d.kind) for d in DECLARED}
    assert all(re.fullmatch(r"satisfice_[a-z_]+", d.name) for d in DECLARED)


def test_a_request_is_counted(metrics: Metrics) -> None:
    metrics.observe(record(first_token=0.1, stream=True, seconds=0.5, waited=0.2))
    found = samples(metrics)
    what = '{model="mini",strategy="plain"}'
    counted = '{endpoint="chat",model="mini",outcome="complete",status="200",strategy="plain"}'
    assert found[f"satisfice_requests_total{counted}"] == 1
    assert found[f"satisfice_generated_tokens_total{what}"] == 9
    assert found[f"satisfice_discarded_tokens_total{what}"] == 6
    assert found[f"satisfice_committed_tokens_total{what}"] == 3
    assert found[f"satisfice_forced_tokens_total{what}"] == 1
    assert found[f"satisfice_first_token_seconds_sum{what}"] == pytest.approx(0.1)
    assert found[f"satisfice_token_seconds_sum{what}"] == pytest.approx(0.2)
    assert found["satisfice_queue_wait_seconds_sum"] == pytest.approx(0.2)


def test_only_what_was_in_the_queue_waited_and_only_streams_have_a_first_token(
    metrics: Metrics,
) -> None:
    for waited in (0.0, 0.3, None):
        metrics.observe(record(first_token=0.1, seconds=0.5, waited=waited))
    found = samples(metrics)
    assert found["satisfice_queue_wait_seconds_count"] == 2
    assert found["satisfice_queue_wait_seconds_sum"] == pytest.approx(0.3)
    assert not any(name.startswith("satisfice_first_token_seconds_count") for name in found)


def test_costs_are_held_against_what_was_expected_of_those_that_ended(metrics: Metrics) -> None:
    for expected, held in ((3.0, 2.0), (None, 2.0), (3.0, None)):
        metrics.observe(record(expected=expected, held=held))
    found = samples(metrics)
    what = 'model="mini",strategy="plain"'
    assert found[f"satisfice_cost_error_count{{{what}}}"] == 1
    assert found[f"satisfice_cost_error_sum{{{what}}}"] == pytest.approx(0.5)


def test_a_client_makes_no_labels(metrics: Metrics) -> None:
    for name in ("x1", "x2", "mini@nothing", "mini@vote-4", "org/slow@v1@plain"):
        metrics.observe(record(model=name, strategy=f"s-{name}", status=404))
    labels = {re.search(r'model="([^"]*)"', name) for name in samples(metrics)}
    assert {found[1] for found in labels if found} == {"", "mini", "org/slow@v1"}
    assert not any("s-x1" in name for name in samples(metrics))


async def test_gauges_are_read_at_the_scrape(
    settings: Settings, fleet_of: Callable[..., Fleet]
) -> None:
    fleet, admission = fleet_of(settings), Admission(Limits(rows=200))
    metrics = Metrics(fleet, admission)
    assert samples(metrics)["satisfice_ready"] == 0
    await fleet.start()
    async with admission.admit(Estimate(3, 10, 3)):
        found = samples(metrics)
    assert found["satisfice_ready"] == 1
    assert found["satisfice_running_requests"] == 1
    assert (found["satisfice_rows"], found["satisfice_rows_limit"]) == (3, 200)
    assert found['satisfice_engine_up{engine="a"}'] == 1
    assert found['satisfice_engine_up{engine="b"}'] == 0
    assert found['satisfice_engine_running{engine="a"}'] == 0
    assert 'satisfice_engine_figure{engine="a",figure="tokens_sampled"}' in found
    assert found['satisfice_monitor_up{monitor="seven"}'] == 1
    await fleet.stop()
    assert samples(metrics)["satisfice_ready"] == 0


def test_openmetrics_where_it_is_asked_for(metrics: Metrics) -> None:
    text, kind = metrics.render("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    assert metrics.render()[1].startswith("text/plain")


def test_two_servers_in_one_process_do_not_share_counts() -> None:
    one, other = Metrics(), Metrics()
    one.observe(record())
    assert sum(v for n, v in samples(other).items() if n.startswith("satisfice_requests")) == 0

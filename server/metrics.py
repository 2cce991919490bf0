"""What the server measures, for Prometheus; the names are documented and stable.

`DECLARED` is the whole list: the registry and `docs/metrics.md` are made from it. It knows no HTTP
beyond the Accept header.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from decoders.core import registry as strategies
from monitors.core.breaker import Circuit
from monitors.core.protected import Protected
from server.admission import Admission
from server.decorate import Call
from server.fleet import Fleet
from server.readiness import State
from server.record import Record

disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it bare
CIRCUITS = (Circuit.CLOSED, Circuit.HALF_OPEN, Circuit.OPEN)
WHAT = ("model", "strategy")
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8, 1, 1.5, 2, 5)
SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric family; `name` without the counters' `_total`."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def shown(self) -> str:
        """As queries spell it."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _counter(name: str, text: str, labels: tuple[str, ...] = WHAT) -> Declared:
    return Declared(f"satisfice_{name}", "counter", text, labels)


def _seconds(
    name: str, text: str, labels: tuple[str, ...] = WHAT, buckets: tuple[float, ...] = SECONDS
) -> Declared:
    return Declared(f"satisfice_{name}_seconds", "histogram", text, labels, buckets)


def _gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Declared:
    return Declared(f"satisfice_{name}", "gauge", text, labels)


DECLARED = (
    _counter(
        "requests",
        "Requests answered, by HTTP status and outcome of the run (empty if it never ran).",
        ("endpoint", *WHAT, "status", "outcome"),
    ),
    _counter("aborted_requests", "Requests whose client went away before the end."),
    _seconds("request", "From arrival to the last byte."),
    _seconds("queue_wait", "Time in the queue, of requests let in or given up there.", ()),
    _seconds("first_token", "From arrival to the first token sent (streams)."),
    _seconds("token", "Mean time per token after the first, per request.", WHAT, SHORT),
    _counter("prompt_tokens", "Tokens of prompts."),
    _counter("committed_tokens", "Tokens that clients were given, forced ones included."),
    _counter("reasoning_tokens", "Those of them that were thinking."),
    _counter("forced_tokens", "Those of them that a strategy put in and no engine sampled."),
    _counter("generated_tokens", "Tokens that engines sampled."),
    _counter("discarded_tokens", "Sampled tokens that no client was given."),
    _counter("engine_requests", "Requests that strategies made to engines."),
    _counter("forward_passes", "Forward passes of diffusion models."),
    _counter("branches", "Sequences that strategies started."),
    _counter("interventions", "Times that a strategy changed what the model would have said."),
    _counter(
        "monitor_calls",
        "Calls of monitors, by result (ok, failed, refused by an open circuit, cancelled).",
        ("monitor", "result"),
    ),
    _seconds("monitor", "Duration of a monitor's call.", ("monitor",), SECONDS),
    _counter("monitor_tokens", "Tokens that monitors' own models read and wrote.", ("monitor",)),
    Declared(
        "satisfice_cost_error",
        "histogram",
        "Row-seconds expected (`expected` of a dry run) beside those then held: relative error.",
        WHAT,
        SHARES,
    ),
    _gauge("running_requests", "Requests that were let in and have not ended."),
    _gauge("queued_requests", "Requests that wait to be let in."),
    _gauge("queue_limit", "The most of them (limits.queue)."),
    _gauge("rows", "Sequences that running requests may decode at once."),
    _gauge("rows_limit", "The most of them (limits.rows)."),
    _gauge("draining", "1 while the server shuts down and takes nothing new."),
    _gauge("ready", "1 if every engine and monitor that is not lazy can answer."),
    _gauge("engine_up", "1 if the engine can answer, by engine.", ("engine",)),
    _gauge("engine_running", "Requests that the engine works on, by engine.", ("engine",)),
    _gauge("engine_figure", "What an engine says of itself, by figure.", ("engine", "figure")),
    _gauge("monitor_up", "1 if the monitor can answer, by monitor.", ("monitor",)),
    _gauge(
        "monitor_circuit",
        "0 if the monitor's circuit is closed, 1 half open, 2 open.",
        ("monitor",),
    ),
    _gauge(
        "monitor_warnings", "What a monitor's start brought to light, as a count.", ("monitor",)
    ),
)


def document() -> str:
    """The text of docs/metrics.md."""
    rows = [
        f"| `{d.shown}` | {d.kind} | {', '.join(f'`{x}`' for x in d.labels) or '-'} | {d.text} |"
        for d in DECLARED
    ]
    head = (
        "# Metrics",
        "",
        "`GET /metrics` answers in Prometheus' text format (OpenMetrics if the client asks).",
        "These names are stable. Histograms also have `_bucket`, `_sum` and `_count`, times are in",
        "seconds. Made from `DECLARED` in `server/metrics.py` by `scripts/docs`.",
        "",
        "| name | type | labels | meaning |",
        "|---|---|---|---|",
    )
    return "\n".join([*head, *rows, ""])


class Metrics:
    """The server's own registry; figures of fleet and admission are read when it is scraped."""

    def __init__(self, fleet: Fleet | None = None, admission: Admission | None = None) -> None:
        self.registry = CollectorRegistry()
        self._fleet = fleet
        self._kept: dict[str, Any] = {d.name: self._made(d) for d in DECLARED if d.kind != "gauge"}
        self.registry.register(_Now(fleet, admission))
        if fleet is not None:
            fleet.watch_monitors(self.monitor_call)

    def _made(self, declared: Declared) -> Counter | Histogram:
        name, text, labels = declared.name, declared.text, declared.labels
        if declared.kind == "counter":
            return Counter(name, text, labels, registry=self.registry)
        return Histogram(name, text, labels, registry=self.registry, buckets=declared.buckets)

    def observe(self, record: Record) -> None:
        """Counts a request that has ended."""
        what = self._known(record)
        status = str(record.status)
        kept = self._kept
        kept["satisfice_requests"].labels(record.endpoint, *what, status, record.outcome).inc()
        kept["satisfice_request_seconds"].labels(*what).observe(record.seconds)
        if record.waited is not None:
            kept["satisfice_queue_wait_seconds"].observe(record.waited)
        if record.aborted:
            kept["satisfice_aborted_requests"].labels(*what).inc()
        if record.first_token is not None and record.stream:
            kept["satisfice_first_token_seconds"].labels(*what).observe(record.first_token)
        if (each := record.time_per_token) is not None:
            kept["satisfice_token_seconds"].labels(*what).observe(each)
        if (error := record.cost_error) is not None:
            kept["satisfice_cost_error"].labels(*what).observe(error)
        for name, amount in _amounts(record).items():
            if amount:
                kept[f"satisfice_{name}"].labels(*what).inc(amount)

    def _known(self, record: Record) -> tuple[str, str]:
        """Only names from the configuration become labels: a client must not make series."""
        models = self._fleet.settings.models if self._fleet else {record.model: None}
        base = record.model if record.model in models else record.model.rpartition("@")[0]
        strategy = record.strategy if record.strategy in strategies.names() else ""
        return (base if base in models else "", strategy)

    def monitor_call(self, call: Call) -> None:
        """Counts one call of a monitor."""
        self._kept["satisfice_monitor_calls"].labels(call.name, call.result).inc()
        self._kept["satisfice_monitor_seconds"].labels(call.name).observe(call.seconds)
        self._kept["satisfice_monitor_tokens"].labels(call.name).inc(call.tokens)

    def render(self, accept: str | None = None) -> tuple[bytes, str]:
        """The exposition and its content type, as the Accept header wants it."""
        encoder, content_type = choose_encoder(accept or "")
        return encoder(self.registry), content_type


def _amounts(record: Record) -> dict[str, int]:
    usage = record.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "committed_tokens": usage.committed_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "forced_tokens": usage.forced_tokens,
        "generated_tokens": usage.generated_tokens,
        "discarded_tokens": usage.discarded_tokens,
        "engine_requests": usage.engine_requests,
        "forward_passes": usage.forward_passes,
        "branches": record.branches,
        "interventions": record.interventions,
    }


Sample = tuple[tuple[str, ...], float]


class _Now(Collector):
    """The gauges, read off fleet and admission at each scrape."""

    def __init__(self, fleet: Fleet | None, admission: Admission | None) -> None:
        self._fleet = fleet
        self._admission = admission

    def collect(self) -> Iterator[GaugeMetricFamily]:
        samples = {**self._of_admission(), **self._of_fleet()}
        for declared in DECLARED:
            if declared.kind == "gauge":
                family = GaugeMetricFamily(declared.name, declared.text, labels=declared.labels)
                for labels, value in samples.get(declared.name.removeprefix("satisfice_"), ()):
                    family.add_metric(labels, value)
                yield family

    def _of_admission(self) -> dict[str, list[Sample]]:
        door = self._admission
        if door is None:
            return {}
        return {
            "running_requests": [((), door.running)],
            "queued_requests": [((), door.queued)],
            "queue_limit": [((), door.limits.queue)],
            "rows": [((), door.rows)],
            "rows_limit": [((), door.limits.rows)],
            "draining": [((), float(door.draining))],
        }

    def _of_fleet(self) -> dict[str, list[Sample]]:
        if self._fleet is None:
            return {}
        now, engines = self._fleet.ready(), self._fleet.engines
        alive = {name: e for name, e in engines.items() if now.engines[name] is State.READY}
        return {
            "ready": [((), float(now.ready))],
            "engine_up": [((n,), float(s is State.READY)) for n, s in now.engines.items()],
            "engine_running": [((name,), float(e.running)) for name, e in alive.items()],
            "engine_figure": [
                ((name, figure), float(value))
                for name, e in alive.items()
                for figure, value in e.figures().items()
            ],
            "monitor_up": [((n,), float(s is State.READY)) for n, s in now.monitors.items()],
            "monitor_circuit": [
                ((n,), float(CIRCUITS.index(m.breaker.state)))
                for n, m in self._fleet.monitors.items()
                if isinstance(m, Protected)
            ],
            "monitor_warnings": [
                ((n,), float(len(m.warnings))) for n, m in self._fleet.monitors.items()
            ],
        }

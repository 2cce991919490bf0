"""OpenTelemetry spans, off unless configured; off, `span` costs nothing and nothing is imported.

A request's span holds one for each call of an engine or a monitor: `follow` puts them around the
methods of what the fleet owns, so that neither knows of tracing.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from engines.base import Delta, Engine, Sampling
from monitors.core.base import Monitor
from server.decorate import around

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as Recorded
    from opentelemetry.trace import Tracer


class Span(Protocol):
    """What a span can be told."""

    def set(self, name: str, value: Any) -> None:
        """Sets an attribute; None is left out."""


class _Off:
    def set(self, name: str, value: Any) -> None:
        """Nothing."""


_OFF: AbstractContextManager[Span] = nullcontext(_Off())
_provider: "TracerProvider | None" = None
_tracer: "Tracer | None" = None


def configure(endpoint: str | None, *, exporter: "SpanExporter | None" = None) -> None:
    """Sends spans to an OTLP/HTTP endpoint, or to `exporter` at once; with neither stays off."""
    global _provider, _tracer
    if endpoint is None and exporter is None:
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    shutdown()
    _provider = TracerProvider(resource=Resource.create({"service.name": "satisfice"}))
    if exporter is not None:
        _provider.add_span_processor(SimpleSpanProcessor(exporter))
    if endpoint is not None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    _tracer = _provider.get_tracer("satisfice")


def shutdown() -> None:
    """Sends what is left and turns tracing off."""
    global _provider, _tracer
    provider, _provider, _tracer = _provider, None, None
    if provider is not None:
        provider.shutdown()


def enabled() -> bool:
    """Whether spans are recorded."""
    return _tracer is not None


def span(name: str, **attributes: Any) -> AbstractContextManager[Span]:
    """A span around a block, under the current one. An exception marks it as failed."""
    return _OFF if _tracer is None else _On(_tracer, name, attributes)


def request_span(headers: Mapping[str, str], **attributes: Any) -> AbstractContextManager[Span]:
    """A request's span, under the caller's if the header `traceparent` names one."""
    if _tracer is None:
        return _OFF
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    parent = TraceContextTextMapPropagator().extract(dict(headers))
    return _On(_tracer, "request", attributes, parent)


class _On:
    """A recorded span; current in its block unless `current` is False."""

    def __init__(
        self,
        tracer: "Tracer",
        name: str,
        attributes: Mapping[str, Any],
        parent: "Context | None" = None,
        current: bool = True,
    ) -> None:
        self._tracer, self._name, self._parent = tracer, name, parent
        self._attributes = {k: v for k, v in attributes.items() if v is not None}
        self._current = current
        self._span: Recorded | None = None
        self._token: Any = None

    def __enter__(self) -> Self:
        from opentelemetry import context, trace

        self._span = self._tracer.start_span(self._name, self._parent, attributes=self._attributes)
        if self._current:
            self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        from opentelemetry import context
        from opentelemetry.trace import Status, StatusCode

        assert self._span is not None
        if isinstance(fault, Exception):
            # Only the type: a message may hold what the user wrote.
            self._span.set_status(Status(StatusCode.ERROR, type(fault).__name__))
        if self._token is not None:
            context.detach(self._token)
        self._span.end()

    def set(self, name: str, value: Any) -> None:
        """Sets an attribute; None is left out."""
        if self._span is not None and value is not None:
            self._span.set_attribute(name, value)


def follow(engines: Mapping[str, Engine], monitors: Mapping[str, Monitor]) -> None:
    """Puts a span around every call of these engines and monitors, as long as tracing is on."""
    for engine in engines.values():
        around(engine, "generate", _generation(engine))
        for method in ("score", "next_logprobs", "prompt_logprobs"):
            around(engine, method, _call(f"engine.{method}", engine=engine.name, kind=engine.kind))
    for monitor in monitors.values():
        around(monitor, "score", _call("monitor.score", monitor=monitor.name, kind=monitor.kind))


def _call(name: str, **attributes: Any) -> Callable[[Any], Any]:
    def wrapper(inner: Any) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            with span(name, **attributes):
                return await inner(*args, **kwargs)

        return call

    return wrapper


def _apart(name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[Span]:
    """A span that does not become the current one."""
    return _OFF if _tracer is None else _On(_tracer, name, attributes, current=False)


def _generation(engine: Engine) -> Callable[[Any], Any]:
    """Not current while it is open: a generator may be closed from another context."""

    def wrapper(inner: Any) -> Any:
        async def generate(
            prefix: Sequence[int], sampling: Sampling, limit: int
        ) -> AsyncGenerator[Delta, None]:
            attributes = {"engine": engine.name, "kind": engine.kind, "prompt_tokens": len(prefix)}
            tokens, finish = 0, None
            with _apart("engine.generate", attributes) as recorded:
                try:
                    async with aclosing(inner(prefix, sampling, limit)) as deltas:
                        async for delta in deltas:
                            tokens, finish = tokens + len(delta.tokens), delta.finish
                            yield delta
                finally:
                    recorded.set("generated_tokens", tokens)
                    recorded.set("finish", finish.value if finish else "cancelled")

        return generate

    return wrapper

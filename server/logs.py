"""Structured logs: JSON lines, or a console for people. No prompt text unless configured.

The request's id is bound to the context, so every line of a request carries it. What libraries log
through the standard module comes out in the same form.
"""

import logging
import sys
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

from server.record import Record

LIBRARIES = ("uvicorn", "uvicorn.error", "vllm", "httpx")
"""Loggers that bring an output of their own, or talk too much."""

_prompts = False


def configure(
    level: str = "info",
    *,
    format: str = "auto",
    prompts: bool = False,
    stream: TextIO | None = None,
) -> None:
    """Sets the process's logging up: ours, the web server's and the engines', on stderr.

    `format` is `json`, `console` or `auto` (console on a terminal); `prompts` lets text through.
    """
    global _prompts
    _prompts = prompts
    output = stream or sys.stderr
    people = format == "console" or (format == "auto" and output.isatty())
    least = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*_shared(), *_rendered(people)],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(file=output),
        cache_logger_on_first_use=False,
    )
    _libraries(least, people, output)


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _rendered(people: bool) -> list[Processor]:
    if people:
        return [structlog.dev.ConsoleRenderer()]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _libraries(least: int, people: bool, output: TextIO) -> None:
    """The standard module's root prints in our form; its loggers keep no output of their own."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_shared(), structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendered(people)],
    )
    out = logging.StreamHandler(output)
    out.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [out]
    root.setLevel(max(least, logging.INFO))
    for name in LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    logging.getLogger("httpx").setLevel(logging.WARNING)


def log(name: str) -> Any:
    """A logger whose lines say where they come from."""
    return structlog.get_logger().bind(logger=name)


def bind(**fields: Any) -> None:
    """Puts fields, as `request_id`, on every later line of this context."""
    structlog.contextvars.bind_contextvars(**fields)


def clear() -> None:
    """Forgets what was bound."""
    structlog.contextvars.clear_contextvars()


def access(record: Record, *, prompt: str | None = None, answer: str | None = None) -> None:
    """One line for a request that has ended; text only with `log_prompts`."""
    fields = _fields(record)
    if _prompts:
        fields |= {"prompt": prompt, "answer": answer}
    write = log("access").error if record.status >= 500 else log("access").info
    write("request", **fields)


def _fields(record: Record) -> dict[str, Any]:
    usage = record.usage
    fields: dict[str, Any] = {
        "request_id": record.request_id,
        "endpoint": record.endpoint,
        "model": record.model,
        "strategy": record.strategy,
        "status": record.status,
        "outcome": record.outcome,
        "stream": record.stream,
        "key": record.key,
        "seconds": round(record.seconds, 4),
        "waited": record.waited and round(record.waited, 4),
        "first_token": None if record.first_token is None else round(record.first_token, 4),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.committed_tokens,
        "generated_tokens": usage.generated_tokens,
        "monitor_calls": usage.monitor_calls,
    }
    if record.error:
        fields["error"] = record.error
    if record.aborted:
        fields["aborted"] = True
    return fields

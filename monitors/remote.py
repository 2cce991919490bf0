"""A moderations endpoint (OpenAI's and those like it) or vLLM's `/classify`, asked over HTTP.

Where it is and who asks come from the configuration alone. Every answer that is not what was
expected is an error: a guard that cannot be understood lets nothing pass. The key stands in a
header and nowhere else. It knows no model.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import httpx
from pydantic import Field, field_validator, model_validator

from engines.pool import Pool
from monitors.core.base import Message, Monitor, MonitorError, Score, Stage, UnreadableError
from monitors.core.registry import Parts
from monitors.core.spec import MonitorSpec
from monitors.core.texts import everything, traced

PATHS = {"moderations": "/v1/moderations", "classify": "/classify"}
MOST_BYTES = 1_000_000
"""The longest answer that is read."""

SETTING = {401, 403, 404}
FOR_THE_TEXT = {400, 413, 422}


class Spec(MonitorSpec):
    """`{kind: remote, url: URL, api: moderations | classify}`.

    Moderations: the value is 1 - 2 · the highest category score, from -1 to 1; what the service
    flags has that category as its label. Classify: the value that `labels` gives to the label.
    """

    kind: Literal["remote"]
    url: str = Field(description="of the server, with or without /v1", pattern="^https?://")
    api: Literal["moderations", "classify"] = "moderations"
    model: str | None = Field(None, description="its name there; null: the server's own choice")
    api_key_env: str | None = Field(None, description="environment variable that holds the key")
    categories: tuple[str, ...] | None = Field(
        None, min_length=1, description="moderations: those that count; null: all"
    )
    labels: dict[str, float] = Field(
        default_factory=dict, description="classify: each label's value; another one is an error"
    )
    reads: Literal["trace", "all"] = Field(
        "trace",
        description="`trace`: the assistant's last message; `all`: the whole conversation",
    )
    health: str | None = Field(
        "/health", description="path that is asked whether it is there; null: never asked"
    )
    connect_s: float = Field(3.0, gt=0, description="longest wait for a connection, in seconds")

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if not parts.hostname or parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must be a scheme, a host and a path, without name, password or query")
        return url

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.api == "classify" and not self.labels:
            raise ValueError("labels: classify needs a value for each label")
        if self.api == "classify" and self.categories is not None:
            raise ValueError("categories: classify has none; name its labels in `labels`")
        if self.api == "moderations" and self.labels:
            raise ValueError("labels: moderations has none; name its categories in `categories`")
        return self


class Remote(Monitor):
    """Asks over one pool of connections; only connecting is tried again, nothing sent twice."""

    kind = "remote"
    unit = "margin"
    judges = "safety"
    floor, ceiling = -1.0, 1.0

    def __init__(self, name: str, spec: Spec) -> None:
        self.name = name
        self._spec = spec
        self._calls: Pool | None = None
        if spec.api == "classify":
            values = spec.labels.values()
            self.unit, self.floor, self.ceiling = "label", min(values), max(values)

    async def start(self) -> None:
        """Opens the pool and looks whether the server is there."""
        env = self._spec.api_key_env
        key = os.environ.get(env, "") if env else ""
        if env and not key:
            raise MonitorError(f"monitor {self.name!r}: {env} is not set")
        # How long an answer may take is the monitor's own time-out.
        timeout = httpx.Timeout(None, connect=self._spec.connect_s)
        self._calls = Pool(self._spec.url, key, timeout, retries=1, kept=32)
        try:
            await self.check()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Closes every connection; running calls end with MonitorError."""
        calls, self._calls = self._calls, None
        if calls is not None:
            await calls.close()

    async def check(self) -> None:
        """Asks for `health`: any answer below 500 says that the server is there."""
        if self._spec.health is None:
            self._pool()
            return
        status, _ = await self._ask("GET", self._spec.health, None)
        if status >= 500:
            raise MonitorError(f"monitor {self.name!r}: the server answers {status}")

    async def score(
        self, conversation: Sequence[Message], steps: Sequence[str], stage: Stage
    ) -> Score:
        """What the server says; text without a letter has nothing to be judged."""
        read = everything if self._spec.reads == "all" else traced
        text = read(conversation, steps)
        if self._spec.api == "moderations" and not text.strip():
            return Score(1.0, 1.0, "safe")
        own = {"model": self._spec.model} if self._spec.model else {}
        status, raw = await self._ask("POST", PATHS[self._spec.api], {**own, "input": text})
        self._check_status(status)
        try:
            answer = json.loads(raw)
            found = self._moderated(answer) if not self._spec.labels else self._labelled(answer)
        except (ValueError, KeyError, AttributeError, TypeError) as fault:
            reason = f"{type(fault).__name__}: {fault}"
            raise MonitorError(f"monitor {self.name!r}: not an answer: {reason}") from fault
        return found

    def _moderated(self, answer: Any) -> Score:
        """One result of a moderations endpoint."""
        [result] = answer["results"]
        scores = _numbers(result["category_scores"])
        flags = _flags(result["categories"])
        flagged = _flag(result["flagged"])
        if self._spec.categories is not None:
            scores = {name: scores[name] for name in self._spec.categories}
            flagged = any(flags[name] for name in self._spec.categories)
        worst = max(scores, key=lambda name: scores[name])
        value = 1 - 2 * scores[worst]
        if not flagged:
            return Score(value, scores[worst], "safe")
        hits = [name for name in scores if flags.get(name)]
        label = max(hits, key=lambda name: scores[name]) if hits else "flagged"
        # One that flags without a score has said no less than one with the highest.
        return Score(value if scores[worst] > 0 else -1.0, scores[worst], label)

    def _labelled(self, answer: Any) -> Score:
        """One result of a classifier."""
        [result] = answer["data"]
        label = result["label"]
        if label not in self._spec.labels:
            raise ValueError(f"the label {str(label)[:64]!r} is not in `labels`")
        sure = max(_numbers(dict(enumerate(result["probs"]))).values())
        tokens = answer.get("usage", {}).get("prompt_tokens", 0)
        return Score(self._spec.labels[label], sure, label, int(tokens))

    def _check_status(self, status: int) -> None:
        if status == 200:
            return
        # What the server says besides is not repeated: it may quote the key.
        text = f"monitor {self.name!r}: the server answers {status}"
        if status in FOR_THE_TEXT:
            raise UnreadableError(text)
        raise MonitorError(text + (" (see url and api_key_env)" if status in SETTING else ""))

    def _pool(self) -> Pool:
        if self._calls is None:
            raise MonitorError(f"monitor {self.name!r} is not started")
        return self._calls

    async def _ask(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        """Status and body of a request; a redirect is not followed."""
        pool, raw = self._pool(), bytearray()
        try:
            async with aclosing(await pool.send(method, path, body, stream=True)) as response:
                async for part in response.aiter_bytes():
                    raw += part
                    if len(raw) > MOST_BYTES:
                        raise MonitorError(f"monitor {self.name!r}: an answer without an end")
                return response.status_code, bytes(raw)
        except (httpx.HTTPError, httpx.StreamError, RuntimeError) as fault:
            words = str(fault) or type(fault).__name__
            raise MonitorError(f"monitor {self.name!r}: {words}") from fault


def _numbers(given: Mapping[Any, Any]) -> dict[Any, float]:
    """Probabilities by name. Raises ValueError for what is none."""
    if not given:
        raise ValueError("no scores")
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"the score of {str(name)[:64]!r} is no number")
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise ValueError(f"the score of {str(name)[:64]!r} is not between 0 and 1")
    return {name: float(value) for name, value in given.items()}


def _flags(given: Mapping[str, Any]) -> dict[str, bool]:
    return {name: _flag(value) for name, value in given.items()}


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("a flag must be true or false")
    return value


def make(name: str, spec: Spec, parts: Parts) -> Remote:
    """The configured endpoint."""
    return Remote(name, spec)

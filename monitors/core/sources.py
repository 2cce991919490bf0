"""Where a monitor's model runs: in this process, or on an engine that serves it.

Either way a monitor asks `read` for rows of numbers at places of a text. What the rows mean, and
how a text comes to be, is the monitor's own business.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from engines.auto import transformers
from engines.base import Capability, Engine
from engines.checkpoints import loaded
from engines.tokenizer import Message, TemplateFault, Tokenizer
from monitors.core.base import MonitorError, UnreadableError
from monitors.core.batching import Batcher
from monitors.core.passes import Reading, Row
from monitors.core.spec import MonitorSpec

Forward = Callable[[Any, Sequence[Reading]], Sequence[list[Row]]]
"""A loaded model's rows for each text of a batch."""
Ask = Callable[[Engine, Reading], Awaitable[list[Row]]]
"""An engine's rows for one text."""


class SourceSpec(MonitorSpec):
    """What the configuration of a monitor with a model holds."""

    model: str | None = Field(None, description="folder of a checkpoint, or a hub id; or `engine`")
    engine: str | None = Field(None, description="id of the engine that serves it; or `model`")
    device: str = Field("cpu", description="where a `model` runs, as torch spells it")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.model is None) == (self.engine is None):
            raise ValueError("needs either a model or an engine")
        return self


class Source(ABC):
    """A model that can be read, with its tokenizer; `name` is the monitor's."""

    name: str
    tokenizer: Tokenizer
    context: int
    """The most tokens that it reads."""

    @abstractmethod
    async def start(self) -> None:
        """Makes it ready; raises MonitorError if it does not fit."""

    async def stop(self) -> None:  # noqa: B027  (an engine is not ours to stop)
        """Frees what `start` took."""

    @abstractmethod
    async def check(self) -> None:
        """Returns if it can be read, else raises."""

    @abstractmethod
    async def read(self, reading: Reading) -> list[Row]:
        """The rows at the reading's places."""

    def encode(self, messages: Sequence[Message], template: str | None = None) -> list[int]:
        """The conversation's ids by the chat template. Raises UnreadableError."""
        return self.tokenizer.encode(self.render(messages, template), special=False)

    def render(self, messages: Sequence[Message], template: str | None = None) -> str:
        """The conversation's text by the chat template. Raises UnreadableError."""
        try:
            return self.tokenizer.render(messages, template=template, add_generation_prompt=False)
        except TemplateFault as fault:
            raise UnreadableError(f"monitor {self.name!r} cannot read this: {fault}") from fault

    def room(self, ids: Sequence[int]) -> None:
        """Raises UnreadableError for a text that is longer than the model reads; none is cut."""
        if len(ids) > self.context:
            raise UnreadableError(
                f"monitor {self.name!r} reads {self.context} tokens; got {len(ids)}"
            )


class Local(Source):
    """A checkpoint run in this process in float32; concurrent reads share forward passes."""

    def __init__(self, name: str, spec: SourceSpec, loader: str, forward: Forward) -> None:
        """`loader` is the class of transformers' that loads it."""
        assert spec.model is not None
        self.name = name
        self._path, self._device, self._loader = spec.model, spec.device, loader
        self._model: Any = None
        self._forward = forward
        self._batches: Batcher[Reading, list[Row]] = Batcher(self._pass)

    async def start(self) -> None:
        """Loads weights and tokenizer in a thread."""
        try:
            found = await asyncio.to_thread(self._load)
        except (OSError, ValueError) as fault:
            raise MonitorError(f"monitor {self.name!r} could not be loaded: {fault}") from fault
        # Not in the thread, which goes on where the start was cancelled.
        self._model, self.tokenizer, self.context = found

    async def stop(self) -> None:
        """Waits for the forward pass that runs and frees the weights."""
        await self._batches.close()
        self._model = None

    async def check(self) -> None:
        """Raises MonitorError before `start` and after `stop`."""
        if self._model is None:
            raise MonitorError(f"monitor {self.name!r} is not loaded")

    async def read(self, reading: Reading) -> list[Row]:
        """From a pass that others may share; each gets what it would get alone."""
        await self.check()
        return await self._batches.submit(reading)

    def _load(self) -> tuple[Any, Tokenizer, int]:
        """The model, its tokenizer and the tokens that it reads."""
        import torch

        model = loaded(getattr(transformers(), self._loader), self._path, dtype=torch.float32)
        context = int(model.config.get_text_config().max_position_embeddings)
        return model.to(self._device), Tokenizer.load(self._path), context

    def _pass(self, batch: Sequence[Reading]) -> Sequence[list[Row]]:
        return self._forward(self._model, batch)


class Served(Source):
    """An engine's model; it is started, stopped and batched by the engine."""

    def __init__(self, name: str, engine: Engine, ask: Ask) -> None:
        self.name = name
        self._engine, self._ask = engine, ask

    async def start(self) -> None:
        """Takes the engine's tokenizer; the engine was started before."""
        self.tokenizer, self.context = self._engine.tokenizer, self._engine.max_context

    async def check(self) -> None:
        """Asks the engine."""
        await self._engine.check()

    async def read(self, reading: Reading) -> list[Row]:
        """From the engine."""
        return await self._ask(self._engine, reading)


def source(
    name: str,
    spec: SourceSpec,
    engines: Mapping[str, Engine],
    needs: Capability,
    local: tuple[str, Forward],
    ask: Ask,
) -> Source:
    """The source that is configured. Raises ValueError for an engine that cannot do what it needs.

    `local` is how a model is loaded and run in this process, `ask` how an engine is asked.
    """
    if spec.engine is None:
        return Local(name, spec, *local)
    engine = engines.get(spec.engine)
    if engine is None:
        raise ValueError(f"engine: there is no engine {spec.engine!r}")
    if needs not in engine.capabilities:
        raise ValueError(f"engine: {spec.engine!r} cannot {needs}")
    return Served(name, engine, ask)

"""Plain torch and transformers, slow and obvious: the oracle that every other engine is held to.

One request at a time, one forward pass per token, no batching. It knows no strategies and no HTTP.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from engines.base import (
    GENERATING,
    Capability,
    Delta,
    Engine,
    EngineDeadError,
    EngineError,
    Finish,
    Sampling,
    TokenLogprob,
)
from engines.checkpoints import end_ids, loaded
from engines.checks import check_generate, check_ids, check_room
from engines.drawing import Draw, best, entry, log_softmax
from engines.labels import LabelsOnly
from engines.tokenizer import Tokenizer

T = TypeVar("T")
Row = NDArray[np.float32]


class Spec(BaseModel):
    """`{kind: reference, model: PATH_OR_ID}`; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    capabilities: ClassVar = GENERATING - {Capability.STRUCTURED, Capability.DIFFUSION}

    kind: Literal["reference"] = "reference"
    model: str = Field(description="folder of a checkpoint, or a hub id")
    tokenizer: str | None = Field(None, description="folder or hub id; the model's own by default")
    max_context: int | None = Field(None, ge=2, description="tokens; the model's own by default")
    device: str = "cpu"
    runner: Literal["generate", "pooling"] = Field(
        "generate", description="pooling: a reward model or another classifier, for monitors"
    )
    lazy: bool = False

    @property
    def pools(self) -> bool:
        """Whether its model has labels in the place of a next token."""
        return self.runner == "pooling"


def build(name: str, spec: Mapping[str, Any]) -> "ReferenceEngine":
    """The engine `name` as configured. Raises ValueError (pydantic's, with the key) for a fault."""
    checked = Spec.model_validate(dict(spec))
    return ReferenceClassifier(name, checked) if checked.pools else ReferenceEngine(name, checked)


class Walk:
    """One sequence on its way through the model, with its key-value cache."""

    def __init__(self, model: Any) -> None:
        self._model, self._cache = model, None

    @torch.inference_mode()
    def feed(self, tokens: Sequence[int]) -> Row:
        """Logits after each of `tokens`, shape [tokens, vocabulary], float32."""
        ids = torch.tensor([list(tokens)], device=self._model.device)
        out = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True)
        self._cache = out.past_key_values
        row: Row = out.logits[0].float().cpu().numpy()
        return row


class ReferenceEngine(Engine):
    """A causal language model in float32. All torch work runs in one thread of its own."""

    kind = "reference"
    capabilities = Spec.capabilities

    def __init__(self, name: str, spec: Spec) -> None:
        self.name, self.spec = name, spec
        self._model: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._running = 0
        self.vocabulary = 0

    async def start(self) -> None:
        """Loads weights and tokenizer; raises EngineError if they cannot be loaded."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"reference-{self.name}")
        try:
            await self._threaded(self._load)
        except (OSError, ValueError, EngineError) as fault:
            await self.stop()
            raise EngineError(f"engine {self.name!r} could not be loaded: {fault}") from fault

    def _load(self) -> None:
        model = loaded(self._loader(), self.spec.model, dtype=torch.float32)
        self.tokenizer = Tokenizer.load(self.spec.tokenizer or self.spec.model)
        own = model.generation_config.eos_token_id if model.can_generate() else None
        self.more_ends = end_ids(own)
        self.max_context = self.spec.max_context or int(model.config.max_position_embeddings)
        # Checkpoints pad the vocabulary, and a padding id may be sampled.
        self.vocabulary = int(model.config.vocab_size)
        self._model = model.to(self.spec.device)

    def _loader(self) -> Any:
        """The class of transformers' that loads such a checkpoint."""
        return AutoModelForCausalLM

    async def stop(self) -> None:
        """Waits for the forward pass that runs and frees the weights."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
        self._model = None  # last, since a load that ran has set it

    async def check(self) -> None:
        """Returns while the model is loaded."""
        self._walk()

    @property
    def running(self) -> int:
        """Calls under way."""
        return self._running

    def figures(self) -> Mapping[str, float]:
        """Calls under way."""
        return {"running": self._running}

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, limit: int
    ) -> AsyncGenerator[Delta, None]:
        """Samples token by token, one delta each."""
        check_generate(self, prefix, sampling, limit)
        ends = self.ending(sampling)
        draw, walk = Draw(sampling, prefix, ends), self._walk()
        limit = min(limit, self.max_context - len(prefix))
        unread = list(prefix)
        with self._working():
            for count in range(1, limit + 1):
                rows = await self._threaded(walk.feed, unread)
                drawn = draw.next(rows[-1])
                unread = [drawn.token]
                finish = Finish.LENGTH if count == limit else None
                if drawn.token in ends:
                    finish = Finish.STOP
                yield Delta(unread, None if sampling.logprobs is None else [drawn], finish)
                if finish:
                    return

    async def score(self, prefix: Sequence[int], continuation: Sequence[int]) -> list[TokenLogprob]:
        """From one forward pass over both."""
        check_room(self, prefix, len(continuation))
        check_ids(self, continuation, "prompt")
        return await self._entries([*prefix, *continuation], len(prefix), 0)

    async def next_logprobs(
        self,
        prefix: Sequence[int],
        k: int | None = None,
        *,
        tokens: Sequence[int] | None = None,
        member: str | None = None,
    ) -> dict[int, float]:
        """From one forward pass; it has no members."""
        check_room(self, prefix, 1)
        check_ids(self, tokens or (), "tokens")
        with self._working():
            row = log_softmax((await self._threaded(self._walk().feed, prefix))[-1])
        if tokens is not None:
            return {token: float(row[token]) for token in tokens}
        return dict(best(row, len(row) if k is None else k))

    async def prompt_logprobs(self, prompt: Sequence[int], top: int) -> list[TokenLogprob | None]:
        """From one forward pass."""
        check_room(self, prompt, 0)
        return [None, *await self._entries(prompt, 1, top)]

    async def _entries(self, ids: Sequence[int], first: int, top: int) -> list[TokenLogprob]:
        """An entry for each id from position `first` on."""
        with self._working():
            rows = await self._threaded(self._walk().feed, ids)
        return [entry(log_softmax(rows[i - 1]), ids[i], top) for i in range(first, len(ids))]

    def _walk(self) -> Walk:
        if self._model is None:
            raise EngineDeadError(f"engine {self.name!r} is not loaded")
        return Walk(self._model)

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def _threaded(self, work: Callable[..., T], *args: Any) -> T:
        """Runs in the engine's thread; what torch raises becomes an EngineError."""
        if self._pool is None:
            raise EngineDeadError(f"engine {self.name!r} is stopped")
        call = asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        try:
            return await call
        except RuntimeError as fault:
            raise EngineError(f"engine {self.name!r} failed: {fault}") from fault
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._pool is None and not (task and task.cancelling()):
                raise EngineDeadError(f"engine {self.name!r} was stopped") from None
            raise


class ReferenceClassifier(LabelsOnly, ReferenceEngine):
    """A reward model or another classifier in float32."""

    async def classify(self, ids: Sequence[int], *, every: bool = False) -> list[list[float]]:
        """From one forward pass; the head's rows as they are."""
        check_room(self, ids, 0)
        self._walk()  # raises unless it is loaded
        with self._working():
            rows: list[list[float]] = await self._threaded(self._labelled, ids)
        return rows if every else rows[-1:]

    def _loader(self) -> Any:
        config = AutoConfig.from_pretrained(self.spec.model, trust_remote_code=False)
        tokens = any("ForTokenClassification" in name for name in config.architectures or ())
        return AutoModelForTokenClassification if tokens else AutoModelForSequenceClassification

    @torch.inference_mode()
    def _labelled(self, ids: Sequence[int]) -> list[list[float]]:
        """The head over every token, also where the model itself would take only the last."""
        whole = torch.tensor([list(ids)], device=self._model.device)
        hidden = self._model.base_model(input_ids=whole, use_cache=False).last_hidden_state
        rows: list[list[float]] = self._model.score(hidden)[0].float().tolist()
        return rows

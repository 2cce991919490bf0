"""A masked diffusion language model as an engine: many canvases, one forward pass per step.

All torch work runs in one thread of its own; requests join and leave between steps. It needs a
`Schedule` in every request's sampling. It knows no strategies and no HTTP.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from engines.base import (
    Delta,
    Engine,
    EngineDeadError,
    EngineError,
    Sampling,
    Schedule,
    TokenLogprob,
    UnsupportedError,
)
from engines.checks import check_generate
from engines.diffusion.checks import check_canvas, check_schedule
from engines.diffusion.model import Denoiser
from engines.diffusion.path import Asked, Path
from engines.diffusion.scheduler import Scheduler
from engines.diffusion.spec import Spec
from engines.diffusion.weights import folder_of, load
from engines.diffusion.words import tokenizer_of

T = TypeVar("T")
Stream = asyncio.Queue[Delta | Exception]
END_MARKS = ("<|eot_id|>", "<|im_end|>")
"""What ends a turn in LLaDA's and Dream's chats, beside their end of sequence."""


def build(name: str, spec: Mapping[str, Any]) -> "DiffusionEngine":
    """The engine `name` as configured. Raises ValueError (pydantic's, with the key) for a fault."""
    return DiffusionEngine(name, Spec.model_validate(dict(spec)))


class DiffusionEngine(Engine):
    """LLaDA or Dream, continuously batched."""

    kind = "diffusion"
    capabilities = Spec.capabilities

    def __init__(self, name: str, spec: Spec) -> None:
        self.name, self.spec = name, spec
        self.vocabulary = 0
        self._model: Denoiser | None = None
        self._scheduler: Scheduler | None = None
        self._streams: dict[Path, Stream] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._work = asyncio.Event()
        self._stepping: asyncio.Task[None] | None = None
        self._filled = 0

    # ---- coming and going

    async def start(self) -> None:
        """Loads weights and tokenizer; raises EngineError if they cannot be loaded."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"diffusion-{self.name}")
        try:
            await self._threaded(self._load)
        except (OSError, ValueError, RuntimeError) as fault:
            await self.stop()
            raise EngineError(f"engine {self.name!r} could not be loaded: {fault}") from fault
        self._work = asyncio.Event()
        self._stepping = asyncio.create_task(self._steps())

    def _load(self) -> None:
        folder = folder_of(self.spec.model)
        self.tokenizer = tokenizer_of(self.spec.tokenizer or str(folder))
        self._model = load(folder, self.spec.device, self._dtype())
        cuda = self.spec.device.startswith("cuda")
        if cuda if self.spec.fused is None else self.spec.fused:
            self._model.fuse()
        shape = self._model.shape
        self.vocabulary = shape.vocabulary
        self.max_context = min(self.spec.max_context or shape.context, shape.context)
        self.more_ends = shape.ends | self._marks()
        self._scheduler = Scheduler(self._model, self.spec.rows, self.spec.tokens)

    def _dtype(self) -> torch.dtype:
        named = self.spec.dtype
        if named == "auto":
            named = "float32" if self.spec.device.startswith("cpu") else "bfloat16"
        found: torch.dtype = getattr(torch, named)
        return found

    def _marks(self) -> frozenset[int]:
        """Tokens that end an answer by their name."""
        known = self.tokenizer.hf.get_vocab()
        for mark in self.spec.end_tokens:
            if mark not in known:
                raise ValueError(f"end_tokens: the tokenizer has no {mark!r}")
        marks = (*END_MARKS, *self.spec.end_tokens)
        return frozenset(known[mark] for mark in marks if mark in known)

    async def stop(self) -> None:
        """Waits for the pass that runs, ends all paths and frees the weights."""
        pool, self._pool = self._pool, None
        stepping, self._stepping = self._stepping, None
        if stepping is not None:
            stepping.cancel()
            await asyncio.gather(stepping, return_exceptions=True)
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
        self._fail(EngineDeadError(f"engine {self.name!r} was stopped"))
        self._model = self._scheduler = None

    async def check(self) -> None:
        """Returns while the model is loaded."""
        self._ready()

    def _ready(self) -> Scheduler:
        if self._scheduler is None or self._stepping is None:
            raise EngineDeadError(f"engine {self.name!r} is not loaded")
        return self._scheduler

    @property
    def running(self) -> int:
        """Paths that wait or are under way."""
        return len(self._streams)

    def figures(self) -> Mapping[str, float]:
        """Paths under way and waiting, passes of the whole engine, positions that were filled."""
        if self._scheduler is None:
            return {}
        waiting = self._scheduler.waiting
        return {
            "running": len(self._streams) - waiting,
            "waiting": waiting,
            "forwards": self._scheduler.passes,
            "generated_tokens_total": self._filled,
        }

    # ---- requests

    def check_schedule(self, schedule: Schedule, prompt: int) -> None:
        """Refuses what does not add up and what has no room; see `faults`."""
        check_schedule(self, schedule, prompt)

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, limit: int
    ) -> AsyncGenerator[Delta, None]:
        """Fills one canvas behind `prefix`; at most `limit` of its positions."""
        scheduler = self._ready()
        check_generate(self, prefix, sampling, limit)
        check_canvas(self, prefix, sampling)
        path, stream = self._path(prefix, sampling, limit), Stream()
        self._streams[path] = stream
        scheduler.add(path)
        self._work.set()
        try:
            while True:
                moment = await stream.get()
                if isinstance(moment, Exception):
                    raise moment
                yield moment
                if moment.finish is not None:
                    return
        finally:
            self._streams.pop(path, None)
            scheduler.drop(path)

    def _path(self, prefix: Sequence[int], sampling: Sampling, limit: int) -> Path:
        assert self._model is not None
        assert sampling.schedule is not None
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        ends = tuple(sorted(self.ending(sampling)))
        bias = self._bias(sampling, ends)
        asked = Asked(tuple(prefix), sampling, sampling.schedule, limit, seed, ends, bias)
        return Path(asked, self._model.shape, self._model.device)

    def _bias(self, sampling: Sampling, ends: Sequence[int]) -> torch.Tensor | None:
        """What is added to the logits: the request's bias, and -inf for what is banned."""
        assert sampling.schedule is not None
        banned = (*sampling.banned, *(ends if sampling.schedule.eos == "never" else ()))
        if not banned and not sampling.logit_bias:
            return None
        bias = torch.zeros(self.vocabulary, dtype=torch.float64)
        for token, value in sampling.logit_bias.items():
            bias[token] += value
        bias[list(banned)] = float("-inf")
        assert self._model is not None
        if not bias[torch.arange(len(bias)) != self._model.shape.mask_id].isfinite().any():
            raise UnsupportedError("every token is banned", "logit_bias")
        return bias.to(self.spec.device)

    async def score(self, prefix: Sequence[int], continuation: Sequence[int]) -> list[TokenLogprob]:
        """Refused: a canvas has no next token."""
        raise self._refusal()

    async def next_logprobs(
        self,
        prefix: Sequence[int],
        k: int | None = None,
        *,
        tokens: Sequence[int] | None = None,
        member: str | None = None,
    ) -> dict[int, float]:
        """Refused: a canvas has no next token."""
        raise self._refusal()

    def _refusal(self) -> UnsupportedError:
        return UnsupportedError(f"engine {self.name!r} fills canvases: no next token", "model")

    # ---- steps

    async def _steps(self) -> None:
        """Steps while there is work. A step that fails ends the paths in it, not the engine."""
        scheduler = self._scheduler
        assert scheduler is not None
        while True:
            self._work.clear()
            while paths := scheduler.joined():
                try:
                    deltas = await self._threaded(scheduler.step, paths)
                except Exception as fault:
                    self._fail(EngineError(f"engine {self.name!r} failed: {fault!r}"), paths)
                    continue
                self._give(scheduler, deltas)
            await self._work.wait()

    def _give(self, scheduler: Scheduler, deltas: Sequence[tuple[Path, Delta]]) -> None:
        for path, delta in deltas:
            if delta.finish is not None:
                scheduler.drop(path)
            if path in self._streams:
                self._filled += len(delta.tokens) + (delta.fill.beyond if delta.fill else 0)
                self._streams[path].put_nowait(delta)

    def _fail(self, fault: Exception, paths: Sequence[Path] | None = None) -> None:
        for path in list(self._streams) if paths is None else paths:
            if self._scheduler is not None:
                self._scheduler.drop(path)
            if path in self._streams:
                self._streams[path].put_nowait(fault)

    async def _threaded(self, work: Callable[..., T], *args: Any) -> T:
        """Runs in the engine's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

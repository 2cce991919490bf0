"""An engine whose next-token distribution is a table: exact, instant, and able to fail on request.

A Markov chain over bytes, made from a seed or given, under a script of texts that it answers. It
serves laws, overhead measures and tests of cancellation, deadlines and errors; it holds no model.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from string import ascii_lowercase
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from engines.base import (
    GENERATING,
    Capability,
    Delta,
    Engine,
    EngineBusyError,
    EngineDeadError,
    EngineError,
    Finish,
    Sampling,
    TokenLogprob,
)
from engines.checks import check_generate, check_ids, check_room
from engines.drawing import Draw, best, entry, log_softmax
from engines.tokenizer import Tokenizer

ROLES = ("system", "developer", "user", "assistant", "tool")
TEMPLATE = (
    "{% if tools %}<|system|>tools: {{ tools | tojson }}<|end|>{% endif %}"
    "{% for m in messages %}"
    "{% if m.role not in " + repr(list(ROLES)) + " %}"
    "{{ raise_exception('unknown role ' ~ m.role) }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content or '' }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking %}<think>{% endif %}"
    "{% endif %}"
)
FAULTS = {"error": EngineError, "dead": EngineDeadError, "busy": EngineBusyError}
DOUBT = 1e-9  # what a script leaves to all other tokens, so that no log-probability is infinite


class Failure(BaseModel):
    """When the engine fails: `after` that many tokens of a request, `times` times (None: always).

    `when` restricts it to prompts that hold this text. 0 fails scores and next_logprobs as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["error", "dead", "busy"] = "error"
    after: int = Field(0, ge=0)
    times: int | None = Field(None, ge=1)
    when: str = ""


class Spec(BaseModel):
    """The configuration of a table engine; an unknown key is an error.

    `script` maps a text in the prompt or the answer so far to what follows it (one of several,
    each as likely). `tokens` and `matrix` (rows of probabilities over `tokens`, by the last token)
    give the chain outright; else it is drawn from `seed` by the last `order` tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    capabilities: ClassVar = GENERATING - {Capability.STRUCTURED, Capability.DIFFUSION}

    kind: Literal["table"] = "table"
    seed: int = Field(0, ge=0)
    order: int = Field(2, ge=1, le=4)
    tokens: tuple[str, ...] = (*ascii_lowercase, " ", ".", "\n", "</think>", "<|end|>")
    matrix: tuple[tuple[float, ...], ...] | None = None
    script: Mapping[str, str | tuple[str, ...]] = Field(default_factory=dict)
    token_seconds: float = Field(0.0, ge=0)
    failure: Failure | None = None
    max_context: int = Field(4096, ge=2)
    lazy: bool = False


def build(name: str, spec: Mapping[str, Any]) -> "TableEngine":
    """The engine `name` as configured. Raises ValueError (pydantic's, with the key) for a fault."""
    return TableEngine(name, Spec.model_validate(dict(spec)))


def byte_tokenizer() -> Tokenizer:
    """One token per byte, with think markers, roles and `<|end|>`; encodes every text."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Rust
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    rust = Rust(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rust.decoder = decoders.ByteLevel()
    marks = ["<|end|>", *(f"<|{role}|>" for role in ROLES)]
    rust.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    rust.add_tokens([AddedToken(mark, special=False) for mark in ("<think>", "</think>")])
    backend = PreTrainedTokenizerFast(
        tokenizer_object=rust, eos_token="<|end|>", additional_special_tokens=marks[1:]
    )
    backend.chat_template = TEMPLATE
    return Tokenizer(backend)


class Chain:
    """A Markov chain's logits by its last tokens, drawn when first asked for, then kept."""

    def __init__(self, spec: Spec, tokens: Sequence[int], size: int) -> None:
        self._spec, self._tokens, self._size = spec, list(tokens), size
        self._rows: dict[tuple[int, ...], NDArray[np.float64]] = {}
        given = spec.matrix
        if given is not None and {len(given), *map(len, given)} != {len(tokens)}:
            raise ValueError(f"matrix: needs {len(tokens)} rows of {len(tokens)} probabilities")

    def row(self, context: Sequence[int]) -> NDArray[np.float64]:
        """Logits after the last tokens of `context`, shape [vocabulary]."""
        order = 1 if self._spec.matrix is not None else self._spec.order
        key = tuple(context[-order:])
        if key not in self._rows:
            self._rows[key] = self._made(key)
        return self._rows[key]

    def _made(self, key: tuple[int, ...]) -> NDArray[np.float64]:
        if self._spec.matrix is not None:
            row = np.full(self._size, -np.inf)
            at = self._tokens.index(key[-1]) if key[-1] in self._tokens else 0
            with np.errstate(divide="ignore"):
                row[self._tokens] = np.log(np.asarray(self._spec.matrix[at]))
            return row
        random = np.random.default_rng((self._spec.seed, *key))
        row = random.normal(-14.0, 1.0, self._size)
        row[self._tokens] = random.normal(0.0, 1.5, len(self._tokens))
        return row


class Script:
    """Texts that are answered with chosen texts, as a distribution over the next token.

    Tokens are spelled as one character each, so that looking for a text is a string search.
    """

    def __init__(self, texts: Mapping[str, str | tuple[str, ...]], tokenizer: Tokenizer) -> None:
        self._size = len(tokenizer)
        self._end = chr(tokenizer.eos_id or 0)
        self._turn = spell(tokenizer.encode("<|assistant|>"))
        self._lines = {
            spell(tokenizer.encode(key)): tuple(
                spell(tokenizer.encode(line)) + self._end
                for line in ([lines] if isinstance(lines, str) else lines)
            )
            for key, lines in texts.items()
        }

    def row(self, spelled: str) -> NDArray[np.float64] | None:
        """Logits after `spelled`, or None where no text's answer goes on from there.

        The text found latest wins. An answer begins at the assistant's turn, or after the text
        itself where that stands in the answer or there are no turns.
        """
        turn = spelled.rfind(self._turn) + 1
        found = sorted(
            ((spelled.rfind(key) + len(key), key) for key in self._lines if key in spelled),
            reverse=True,
        )
        for at, key in found:
            so_far = spelled[max(at, turn) :]
            nexts = [
                ord(line[len(so_far)])
                for line in self._lines[key]
                if line.startswith(so_far) and len(line) > len(so_far)
            ]
            if nexts:
                counts = np.bincount(nexts, minlength=self._size)
                return np.log(counts / len(nexts) + DOUBT / self._size)
        return None


def spell(tokens: Sequence[int]) -> str:
    """Token ids as a string, one character each."""
    return "".join(map(chr, tokens))


class TableEngine(Engine):
    """The engine over a chain and a script."""

    kind = "table"
    capabilities = Spec.capabilities

    def __init__(self, name: str, spec: Spec | None = None) -> None:
        self.name = name
        self.spec = spec or Spec()
        self.max_context = self.spec.max_context
        self._running = 0
        self._failed = 0
        self._dead: str | None = "not started"
        self._tokens_sampled = 0

    @cached_property
    def tokenizer(self) -> Tokenizer:  # type: ignore[override]
        """The byte tokenizer, one of its own."""
        return byte_tokenizer()

    async def start(self) -> None:
        """Makes the table."""
        ids = [self.tokenizer.encode(text, special=False) for text in self.spec.tokens]
        if any(len(one) != 1 for one in ids):
            raise ValueError("tokens: each must be one token")
        self._chain = Chain(self.spec, [one[0] for one in ids], len(self.tokenizer))
        self._script = Script(self.spec.script, self.tokenizer)
        self._dead = None

    async def stop(self) -> None:
        """Ends running calls."""
        self._dead = "stopped"

    async def check(self) -> None:
        """Returns while it runs."""
        if self._dead is not None:
            raise EngineDeadError(f"engine {self.name!r} is {self._dead}")

    @property
    def running(self) -> int:
        """Calls under way."""
        return self._running

    def figures(self) -> Mapping[str, float]:
        """Calls under way and tokens sampled."""
        return {"running": self._running, "tokens_sampled": self._tokens_sampled}

    def logits(self, spelled: str) -> NDArray[np.float64]:
        """The row after a prefix (see `spell`), shape [vocabulary]."""
        row = self._script.row(spelled)
        return self._chain.row([ord(c) for c in spelled[-4:]]) if row is None else row

    async def generate(
        self, prefix: Sequence[int], sampling: Sampling, limit: int
    ) -> AsyncGenerator[Delta, None]:
        """Samples token by token, one delta each."""
        check_generate(self, prefix, sampling, limit)
        ends = self.ending(sampling)
        draw, spelled = Draw(sampling, prefix, ends), spell(prefix)
        limit = min(limit, self.max_context - len(prefix))
        with self._working():
            for count in range(limit):
                await self._step(spelled, count, len(prefix))
                drawn = draw.next(self.logits(spelled))
                spelled += chr(drawn.token)
                self._tokens_sampled += 1
                stopped = drawn.token in ends
                finish = Finish.LENGTH if count + 1 == limit else None
                yield Delta(
                    (drawn.token,),
                    None if sampling.logprobs is None else (drawn,),
                    Finish.STOP if stopped else finish,
                )
                if stopped:
                    return

    async def score(self, prefix: Sequence[int], continuation: Sequence[int]) -> list[TokenLogprob]:
        """The table's own entries."""
        check_room(self, prefix, len(continuation))
        check_ids(self, continuation, "prompt")
        return await self._entries(prefix, continuation, 0)

    async def next_logprobs(
        self,
        prefix: Sequence[int],
        k: int | None = None,
        *,
        tokens: Sequence[int] | None = None,
        member: str | None = None,
    ) -> dict[int, float]:
        """The table's own entries; it has no members."""
        check_room(self, prefix, 1)
        with self._working():
            await self._step(spell(prefix), 0, len(prefix))
            row = log_softmax(self.logits(spell(prefix)))
            if tokens is not None:
                check_ids(self, tokens, "tokens")
                return {token: float(row[token]) for token in tokens}
            return dict(best(row, len(row) if k is None else k))

    async def prompt_logprobs(self, prompt: Sequence[int], top: int) -> list[TokenLogprob | None]:
        """The table's own entries."""
        check_room(self, prompt, 0)
        return [None, *await self._entries(prompt[:1], prompt[1:], top)]

    async def _entries(
        self, prefix: Sequence[int], tokens: Sequence[int], top: int
    ) -> list[TokenLogprob]:
        spelled, found = spell(prefix), []
        with self._working():
            await self._step(spelled, 0, len(prefix))
            for token in tokens:
                found.append(entry(log_softmax(self.logits(spelled)), token, top))
                spelled += chr(token)
        return found

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def _step(self, spelled: str, count: int, prompt: int) -> None:
        """Takes the time of one token, and fails where that is asked for."""
        await self.check()
        await asyncio.sleep(self.spec.token_seconds)
        await self.check()
        failure = self.spec.failure
        if failure is None or count != failure.after or self._failed == failure.times:
            return
        if spell(self.tokenizer.encode(failure.when, special=False)) not in spelled[:prompt]:
            return
        self._failed += 1
        if failure.kind == "dead":
            self._dead = "dead, as its table says"
        raise FAULTS[failure.kind](f"engine {self.name!r} failed after {count} tokens, as asked")

"""Asks a server many questions under one setting, through the `openai` client, many at a time."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import openai
from openai.types.chat.chat_completion import ChoiceLogprobs

ROWS = 128


Asked = TypeVar("Asked")
Got = TypeVar("Got")


async def each(
    items: Sequence[Asked],
    ask: Callable[[Asked], Awaitable[Got]],
    told: Callable[[], None],
    concurrent: int,
) -> list[Got]:
    """What `ask` gives for each, in order, so many at a time; calls `told` after each."""
    room = asyncio.Semaphore(concurrent)

    async def one(item: Asked) -> Got:
        async with room:
            got = await ask(item)
        told()
        return got

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(item)) for item in items]
    return [task.result() for task in tasks]


class Item(Protocol):
    """What can be asked: a user's message, and whether an answer's content is right."""

    @property
    def id(self) -> str:
        """Its name; the seed of its requests depends on it."""

    @property
    def prompt(self) -> str:
        """The user's message."""

    def is_right(self, content: str) -> bool:
        """Whether this answers it."""


@dataclass(frozen=True)
class Arm:
    """One setting of a comparison: its name in the table and what its requests carry.

    `rows` is how many sequences a request decodes at once; it bounds how many are sent. `tokens`
    asks for the ids of the answer's tokens.
    """

    name: str
    decoding: Mapping[str, Any]
    sampling: Mapping[str, Any] = field(default_factory=dict)
    rows: int = 1
    tokens: bool = False


@dataclass(frozen=True)
class Reply:
    """One answer: whether it is right, what was thought and spent."""

    question: Item
    content: str
    right: bool
    thinking: int
    spent: Mapping[str, int]
    decoding: Mapping[str, Any]
    seconds: float
    reasoning: str = ""
    finish: str = ""
    tokens: Sequence[int] = ()

    @property
    def refused(self) -> bool:
        """Whether the server refused to let the answer out."""
        return self.decoding.get("outcome") == "refused"


@dataclass(frozen=True)
class Verdict:
    """What a guard said of one text; a score below its threshold is flagged, None is unknown."""

    guard: str
    flagged: bool
    score: float | None


class Asker:
    """A server's model, asked with seeds that depend on the question alone.

    So all arms ask a question with the same seed, and a repetition gives the same answers.
    """

    def __init__(self, url: str, model: str, seed: int, api_key: str = "none") -> None:
        self._url = url.rstrip("/")
        self._client = openai.AsyncOpenAI(
            base_url=f"{self._url}/v1", api_key=api_key, max_retries=5, timeout=900
        )
        self._seed = seed
        self.model = model

    def beside(self, model: str) -> "Asker":
        """The same server and seeds, another of its models; the connections are shared."""
        other = copy(self)
        other.model = model
        return other

    async def ask(
        self, arm: Arm, questions: Sequence[Item], told: Callable[[], None]
    ) -> list[Reply]:
        """The answers in the questions' order; calls `told` after each. Raises openai.APIError."""
        return await each(
            questions, lambda one: self._one(arm, one), told, max(2, ROWS // arm.rows)
        )

    async def judge(
        self, guard: str, texts: Sequence[str], told: Callable[[], None], concurrent: int = 32
    ) -> list[Verdict]:
        """What a guard says of each text; "" is the first one. Raises openai.APIError."""
        return await each(texts, lambda text: self._verdict(guard, text), told, concurrent)

    async def _verdict(self, guard: str, text: str) -> Verdict:
        answer = await self._client.moderations.create(
            input=text, model=guard if guard else openai.omit
        )
        (result,) = answer.results
        score = (result.model_extra or {}).get("score")
        return Verdict(answer.model, result.flagged, score)

    async def unit(self, monitor: str) -> str:
        """The unit of a monitor's scores. Raises ValueError if the server has no such monitor."""
        answer: Any = await self._client.get("/monitors", cast_to=object)
        units = {one["name"]: str(one["unit"]) for one in answer["data"]}
        if monitor not in units:
            raise ValueError(f"the server has no monitor {monitor!r}")
        return units[monitor]

    async def encode(self, prompt: str) -> list[int]:
        """Token ids of a user's message under the model's chat template."""
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        answer: Any = await self._client.post(f"{self._url}/tokenize", cast_to=object, body=body)
        return list(answer["tokens"])

    async def logprob(self, tokens: Sequence[int], last: int) -> float:
        """The log-probability of the last so many of these tokens, each after all before it."""
        answer = await self._client.completions.create(
            model=self.model, prompt=list(tokens), echo=True, logprobs=1, max_tokens=0
        )
        found = answer.choices[0].logprobs
        if found is None or found.token_logprobs is None:
            raise ValueError(f"the server gives no log-probabilities of a prompt of {self.model}")
        return float(sum(found.token_logprobs[-last:]))

    async def context(self) -> int:
        """The longest sequence that the model takes, in tokens; 2048 if the server does not say."""
        card = await self._client.models.retrieve(self.model)
        longest: int = (card.model_extra or {}).get("max_model_len") or 2048
        return longest

    async def _one(self, arm: Arm, question: Item) -> Reply:
        began = time.perf_counter()
        answer = await self._client.chat.completions.create(
            model=self.model,
            messages=[{"role": "user", "content": question.prompt}],
            seed=self._seed_of(question),
            logprobs=arm.tokens or openai.omit,
            extra_body={
                "decoding": dict(arm.decoding),
                **({"return_tokens_as_token_ids": True} if arm.tokens else {}),
            },
            **arm.sampling,
        )
        choice, usage = answer.choices[0], answer.usage
        assert usage is not None
        content = choice.message.content or ""
        details = usage.completion_tokens_details
        return Reply(
            question,
            content,
            question.is_right(content),
            (details.reasoning_tokens if details else None) or 0,
            (usage.model_extra or {}).get("decoding") or {},
            (choice.model_extra or {}).get("decoding") or {},
            time.perf_counter() - began,
            (choice.message.model_extra or {}).get("reasoning") or "",
            choice.finish_reason,
            _ids(choice.logprobs),
        )

    def _seed_of(self, question: Item) -> int:
        digest = hashlib.sha256(f"{self._seed}:{question.id}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()


def _ids(logprobs: ChoiceLogprobs | None) -> list[int]:
    """The ids in entries whose tokens are spelled `token_id:N`."""
    entries = (logprobs.content or []) if logprobs is not None else []
    named = (entry.token.partition("token_id:")[2] for entry in entries)
    return [int(name) for name in named if name]

"""One whole answer as a path: thinking up to a cap, then the answer. Shared by what votes or picks.

A path without a cap is one engine request, token for token what `plain` does. It does not know
what its answer is used for.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import groupby

from decoders.core.base import Commit, RequestError
from decoders.core.run import INTERVENTION, Run
from decoders.core.stops import Stops, tell_end
from decoders.core.think import is_thinking
from engines.base import Finish


@dataclass(slots=True)
class Path:
    """The commits of a path so far, and its score once it has one."""

    commits: list[Commit] = field(default_factory=list)
    length: int = 0
    score: float | None = None

    def add(self, moment: Commit | float) -> None:
        """Takes what the path says next, or its score."""
        if isinstance(moment, float):
            self.score = moment
            return
        self.commits.append(moment)
        self.length += len(moment.tokens)

    @property
    def tokens(self) -> list[int]:
        """All its token ids."""
        return [token for commit in self.commits for token in commit.tokens]

    def whole(self) -> list[Commit]:
        """The commits with neighbours of a kind joined, since all of them stand at once now."""
        return [_joined(list(alike)) for _, alike in groupby(self.commits, lambda c: c.forced)]

    @property
    def finished(self) -> bool:
        """Whether it came to an end of its own or to a stop string, not to a limit."""
        last = self.commits[-1] if self.commits else Commit(())
        return last.stopped or last.finish is Finish.STOP


def _joined(commits: Sequence[Commit]) -> Commit:
    last = commits[-1]
    tokens = [token for commit in commits for token in commit.tokens]
    asked = any(commit.logprobs is not None for commit in commits)
    entries = [entry for commit in commits for entry in commit.logprobs or ()]
    return Commit(tokens, last.forced, entries if asked else None, last.finish)


async def think_then_answer(run: Run, cap: int | None) -> AsyncGenerator[Commit, None]:
    """Samples an answer whose first `cap` tokens may be thinking; what is still open is closed.

    The first request is limited to `cap` tokens, so the cap holds to the token; an answer that is
    under way by then goes on in a second request.
    """
    if cap is None or run.think is None or not run.request.chat:
        async for delta in run.generate():
            yield Commit.of(delta)
        return
    done: list[int] = []
    async for delta in run.generate(limit=cap, purpose=("think",)):
        done += delta.tokens
        if delta.finish is Finish.STOP:
            yield Commit.of(delta)
            return
        yield Commit(delta.tokens, False, delta.logprobs)
    if still_thinking(run, done):
        forced = close(run)
        done += forced.tokens
        yield forced
    async for delta in run.generate(done, purpose=("answer",)):
        yield Commit.of(delta)


async def until_stop(
    run: Run, source: AsyncGenerator[Commit, None]
) -> AsyncGenerator[Commit, None]:
    """What a path says up to a stop string, where its source is ended."""
    stops = Stops(run.request)
    async with aclosing(source):
        async for commit in source:
            taken = stops.standing(commit)
            if stops.found:
                yield replace(
                    commit, tokens=commit.tokens[:taken], finish=None, stopped=True,
                    logprobs=commit.logprobs and commit.logprobs[:taken],
                )  # fmt: skip
                await tell_end(source, taken)
                return
            yield commit


def still_thinking(run: Run, tokens: Sequence[int]) -> bool:
    """Whether an answer that begins with `tokens` has not closed its thinking."""
    return is_thinking(run.think, run.request.think_open, tokens)


def close(run: Run) -> Commit:
    """The forced close marker."""
    assert run.think is not None
    return forced(run, run.think.close_ids)


def forced(run: Run, tokens: Sequence[int]) -> Commit:
    """Tokens that the strategy writes itself, as a commit."""
    asked = run.sampling.logprobs is not None
    run.note(INTERVENTION, tokens=tokens, count=len(tokens))
    return Commit(tokens, True, [None] * len(tokens) if asked else None)


def spaced(run: Run, done: Sequence[int], phrase: str) -> str:
    """The phrase as the model would write it: after a blank, unless a line has just ended."""
    before = run.request.engine.tokenizer.decode(done[-1:], skip_special=False)
    return phrase if before[-1:].isspace() or not before else f" {phrase}"


def share_of(thinking_budget: int | None, paths: int, path: str) -> int | None:
    """One path's part of a thinking budget; raises `RequestError` if it is less than a token."""
    if thinking_budget is None:
        return None
    if thinking_budget < paths:
        where = f"decoding.params.{path}"
        raise RequestError(f"{where}: {thinking_budget} tokens do not go over {paths} paths", where)
    return thinking_budget // paths

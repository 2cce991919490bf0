"""Where a stop string ends an answer that nobody has been sent yet: a path, a block, a look-ahead.

Read by the same fold as what is sent, so that what is judged is what the client would get. It does
not know who samples.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

from decoders.core.base import Commit, DecodeRequest, TextEnded
from decoders.core.output import Reading, Transcript


class Stops:
    """Reads an answer's commits as they come; content is searched, thinking is not."""

    def __init__(self, request: DecodeRequest, done: Sequence[int] = ()) -> None:
        """`done` are the tokens before them; a request without stop strings reads nothing."""
        self._transcript = Transcript(request) if request.stop else None
        self.standing(Commit(done))

    @property
    def found(self) -> bool:
        """Whether the text has ended."""
        return self._transcript is not None and self._transcript.stop is not None

    def standing(self, commit: Commit) -> int:
        """How many of its tokens stand: to the end of the one in which a stop string ends."""
        if self._transcript is None:
            return len(commit.tokens)
        self._transcript.add(commit)
        return self._transcript.taken


def ended(request: DecodeRequest, tokens: Sequence[int]) -> Reading | None:
    """The texts of an answer up to its stop string; None without one."""
    if not request.stop:
        return None
    transcript = Transcript(request)
    piece = transcript.add(Commit(tokens))
    if transcript.stop is None:
        return None
    return Reading(piece.reasoning.lstrip(), piece.content.lstrip())


async def tell_end(body: AsyncGenerator[Commit, None], taken: int) -> None:
    """Tells a decoder that a stop string ended the text, `taken` tokens into its last commit."""
    with suppress(TextEnded, StopAsyncIteration):
        await body.athrow(TextEnded(taken))

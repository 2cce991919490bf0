"""Think markers in a token stream: where reasoning begins and ends.

Works on token ids, so a marker that is spelled by ordinary text never counts as one. It knows no
engine and no text.
"""

from collections.abc import Iterator, Sequence

from decoders.core.base import Channel, Think


class Splitter:
    """Says for each token which channel it belongs to; markers themselves belong to none.

    An answer may open with the markers' OPEN (or the prompt may have opened it already); what
    stands up to CLOSE is reasoning, all the rest content. Later markers are ordinary content.
    """

    def __init__(self, think: Think | None, opened: bool) -> None:
        """`opened` says that the prompt ends inside the thinking."""
        self._think = think
        self._started = opened or think is None
        self.channel = Channel.REASONING if think and opened else Channel.CONTENT
        self.closed = False
        self._held: list[int] = []

    @property
    def thinking(self) -> bool:
        """True between the markers."""
        return self.channel is Channel.REASONING

    @property
    def held(self) -> int:
        """How many of the last tokens are not settled: they may begin a marker."""
        return len(self._held)

    def _awaited(self) -> tuple[int, ...]:
        """The marker that may come next, () if none may."""
        if self._think is None:
            return ()
        if not self._started:
            return self._think.open_ids
        return self._think.close_ids if self.thinking else ()

    def feed(self, token: int) -> Iterator[tuple[int, Channel]]:
        """Yields the tokens that are settled by `token`, each with its channel."""
        marker = self._awaited()
        if not marker:
            yield token, self.channel
            return
        self._held.append(token)
        if tuple(self._held) == marker:
            self._switch()
        elif tuple(self._held) != marker[: len(self._held)]:
            yield from self._release(marker)

    def follow(self, tokens: Sequence[int]) -> None:
        """Takes tokens that stand already; nobody is told which channel they belong to.

        Where a marker cannot be they are not looked at one by one: an answer may be long.
        """
        at = 0
        while at < len(tokens) and (marker := self._awaited()):
            if self.thinking and not self._held:
                try:
                    at = tokens.index(marker[0], at)
                except ValueError:
                    return
            for _ in self.feed(tokens[at]):
                pass
            at += 1

    def _switch(self) -> None:
        self._held.clear()
        self.closed = self.thinking
        self._started = True
        self.channel = Channel.CONTENT if self.closed else Channel.REASONING

    def _release(self, marker: Sequence[int]) -> Iterator[tuple[int, Channel]]:
        """Gives up held tokens until the rest may again begin the marker."""
        while self._held and tuple(self._held) != tuple(marker[: len(self._held)]):
            self._started = True
            yield self._held.pop(0), self.channel
            if not self.thinking:
                marker = ()

    def flush(self) -> Iterator[tuple[int, Channel]]:
        """Yields what was held back when the stream has ended."""
        while self._held:
            yield self._held.pop(0), self.channel


def is_thinking(think: Think | None, opened: bool, tokens: Sequence[int]) -> bool:
    """Whether an answer that begins with `tokens` is still inside its thinking."""
    splitter = Splitter(think, opened)
    splitter.follow(tokens)
    return splitter.thinking

"""What there is to say of one request when it has ended: for metrics and the log."""

from dataclasses import dataclass, field

from decoders.core.base import Usage


@dataclass(slots=True, kw_only=True)
class Record:
    """Filled while a request is answered. Times in seconds; `waited` is the time in the queue,
    None for what never came to it or was refused at once.

    `outcome` is that of the first choice that did not end complete, else "complete"; "" if it
    never ran. `error` is the code of what was answered instead. `aborted`: the client went away.
    `first_token` counts from `arrival`, a time of the event loop's clock. `expected` are the
    row-seconds that the like of it mostly costs, and `held` what it then held; None where nothing
    was expected, or it did not end by itself.
    """

    request_id: str
    endpoint: str
    arrival: float = 0.0
    model: str = ""
    strategy: str = ""
    stream: bool = False
    key: str | None = None
    status: int = 200
    outcome: str = ""
    error: str | None = None
    aborted: bool = False
    seconds: float = 0.0
    waited: float | None = None
    expected: float | None = None
    held: float | None = None
    first_token: float | None = None
    usage: Usage = field(default_factory=Usage)
    interventions: int = 0
    branches: int = 0

    def wait(self, seconds: float) -> None:
        """How long it was in the queue."""
        self.waited = seconds

    @property
    def time_per_token(self) -> float | None:
        """Mean seconds per token after the first; None with fewer than two tokens."""
        later = self.usage.committed_tokens - 1
        if self.first_token is None or later < 1:
            return None
        return max(0.0, self.seconds - self.first_token) / later

    @property
    def cost_error(self) -> float | None:
        """How far the expected cost was from the real one, relative to it; None if unknown."""
        if self.expected is None or not self.held:
            return None
        return abs(self.expected - self.held) / self.held

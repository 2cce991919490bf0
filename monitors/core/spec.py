"""What the configuration of every kind of monitor holds.

It does not know the kinds, nor who reads `on_monitor_error`.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from monitors.core.breaker import BreakerSpec


class Canary(BaseModel):
    """A text whose verdict is known. Without `prompt` it is a user's message, else the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    expect: Literal["safe", "unsafe"]
    prompt: str | None = None


class MonitorSpec(BaseModel):
    """What every monitor's configuration holds; an unknown key is an error.

    `on_monitor_error` is read by whoever runs strategies, not by the monitor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    timeout_s: float = Field(10.0, gt=0, description="longest wait for one score, in seconds")
    on_monitor_error: Literal["block", "continue"] = "block"
    breaker: BreakerSpec = Field(
        BreakerSpec(),
        description="`{failures: 5, rest_s: 30}`: failures in a row that open the circuit, and "
        "for how many seconds",
    )
    calibration: Path | None = Field(
        None, description="JSON file; beats `calibration.json` beside the weights"
    )
    threshold: float | None = Field(
        None,
        allow_inf_nan=False,
        description="a value below it is a violation; beats the calibration's",
    )
    canaries: tuple[Canary, ...] = Field(
        (),
        description="`{text, expect: safe or unsafe, prompt}`; a wrong verdict at the start warns",
    )
    trivial: Literal["lowest", "score"] = Field(
        "lowest",
        description="what a judge of answers gives to one that says nothing: its lowest value, or "
        "what its model says",
    )

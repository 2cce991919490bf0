"""A fault of a configuration: where it stands and what is wrong. It does not know what is right."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """`line` counts from 1 (0: the file as a whole); `key` is the path, as `models.x.engine`."""

    line: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.key}: {self.message}" if self.key else f"{place}{self.message}"


class SettingsError(ValueError):
    """The configuration cannot be used; `faults` has every reason."""

    def __init__(self, faults: Sequence[Fault], source: str = "configuration") -> None:
        self.faults = list(faults)
        super().__init__("\n".join([f"{source}: {len(faults)} fault(s)", *map(str, faults)]))

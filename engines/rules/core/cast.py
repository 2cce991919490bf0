"""Who plays which part in an ensemble, and what a rule's parameters are checked against.

Fixed when an ensemble's engine starts. It knows no tensors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pydantic import BaseModel, ConfigDict


class RuleFault(ValueError):
    """A rule cannot be had as it was asked for; `field` is the parameter at fault, if one is."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Reward(BaseModel):
    """A member read as an autoregressive reward: beta·log(member / reference), token by token.

    Without a reference only log(member) can be had, which is another advantage.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    member: str
    reference: str | None = None
    beta: float = 1.0


@dataclass(frozen=True)
class Cast:
    """Who is in an ensemble: fixed when its engine starts. `reference` is a member's name."""

    members: tuple[str, ...]
    reference: str | None = None
    rewards: Mapping[str, Reward] = field(default_factory=dict)

    @cached_property
    def policies(self) -> tuple[str, ...]:
        """Members that may speak: all but the reference and what rewards are made of."""
        parts = {self.reference}
        for reward in self.rewards.values():
            parts |= {reward.member, reward.reference}
        # An ensemble of nothing else lets all its members speak.
        return tuple(name for name in self.members if name not in parts) or self.members

    def member(self, name: str, field: str) -> int:
        """The place of a member; RuleFault if there is none of that name."""
        if name not in self.members:
            known = ", ".join(self.members)
            raise RuleFault(f"{field}: no member {name!r}; there are {known}", field)
        return self.members.index(name)

    def agents(self, names: Sequence[str] | None) -> None:
        """RuleFault unless each is a member and named once."""
        for name in names or ():
            self.member(name, "agents")
        if len(set(names or ())) != len(names or ()):
            raise RuleFault("agents: each may be named once", "agents")

    def reward(self, name: str, field: str, *, against: bool = True) -> Reward:
        """A reward; RuleFault if there is none, or none against a reference where one is needed."""
        found = self.rewards.get(name)
        if found is None:
            known = ", ".join(self.rewards) or "none"
            raise RuleFault(f"{field}: no reward {name!r}; configured: {known}", field)
        if against and found.reference is None:
            raise RuleFault(f"{field}: reward {name!r} has no reference, so is no advantage", field)
        return found


class Parameters(BaseModel):
    """Base of a rule's parameters: flat, frozen, strict about names and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def check(self, cast: Cast) -> None:
        """Raises RuleFault for what does not fit the ensemble."""

"""What every ensemble is, whatever runs it: several policies over one vocabulary, told by name.

Configuration, the parts that members play, and what is refused: an ensemble whose members disagree
on the vocabulary at its start, a rule that names what is not there at admission.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engines.adapters import base_of
from engines.auto import transformers
from engines.base import Engine, EngineError, Rule, Sampling, UnsupportedError
from engines.rules.core.cast import Cast, Reward, RuleFault
from engines.tokenizer import Tokenizer

SHOWN = 5


class EnsembleSpec(BaseModel):
    """`{members: {NAME: PATH}, reference: NAME, rewards: {NAME: {member, reference, beta}}}`.

    Members share a vocabulary; the first one speaks where no rule is asked for. A member that is
    a LoRA adapter's folder is merged into a copy of its model when the engine starts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: dict[str, str] = Field(
        min_length=1, max_length=16, description="name -> folder of a checkpoint, or a hub id"
    )
    reference: str | None = Field(None, description="the member that policies are compared to")
    rewards: dict[str, Reward] = Field(
        default_factory=dict,
        description="autoregressive rewards: the member, its own reference, its beta",
    )
    tokenizer: str | None = Field(None, description="folder or hub id; the first member's own")
    lazy: bool = False

    @model_validator(mode="after")
    def _names(self) -> Self:
        for reward, made in self.rewards.items():
            for key in ("member", "reference"):
                name = getattr(made, key)
                if name is not None and name not in self.members:
                    raise ValueError(f"rewards.{reward}.{key}: {name!r} is no member")
        if self.reference is not None and self.reference not in self.members:
            raise ValueError(f"reference: {self.reference!r} is no member")
        return self

    @property
    def cast(self) -> Cast:
        """Who plays which part."""
        return Cast(tuple(self.members), self.reference, dict(self.rewards))

    @property
    def first(self) -> str:
        """The path of the first member; its model's where that is an adapter."""
        path = next(iter(self.members.values()))
        return base_of(path) or path


class Ensemble(Engine):
    """Mixed into an engine that hosts several policies."""

    cast: Cast

    def check_rule(self, rule: Rule) -> None:
        """Returns if the ensemble can follow the rule; else UnsupportedError names the field."""
        from engines.rules.core.registry import checked

        try:
            checked(rule.name, rule.parameters, self.cast)
        except RuleFault as fault:
            raise UnsupportedError(f"engine {self.name!r}: {fault}", fault.field) from fault

    def asking(self, member: str) -> Sampling:
        """A greedy step of one member alone. UnsupportedError if there is none of that name."""
        rule = Rule("only", {"policy": member})
        try:
            self.cast.member(member, "member")
        except RuleFault as fault:
            raise UnsupportedError(f"engine {self.name!r}: {fault}", "member") from fault
        return Sampling(temperature=0, rule=rule)


def agreed(name: str, members: Mapping[str, str]) -> int:
    """The size of the vocabulary that all members have in common, padding left out.

    Raises EngineError that names the ids on which two of them disagree.
    """
    sizes, first = [], next(iter(members))
    words: dict[int, str] = {}
    for member, path in members.items():
        try:
            shape = transformers().AutoConfig.from_pretrained(path, trust_remote_code=False)
            config = shape.get_text_config()
            tokenizer = Tokenizer.load(path)
        except (OSError, ValueError) as fault:
            raise EngineError(f"engine {name!r}: members.{member}: {fault}") from fault
        sizes.append(int(config.vocab_size))
        own = {token: word for word, token in tokenizer.hf.get_vocab().items()}
        words = words or own
        if own != words:
            said = differing(words, own)
            raise EngineError(f"engine {name!r}: {first} and {member} disagree on tokens: {said}")
    if min(sizes) <= max(words):
        raise EngineError(f"engine {name!r}: a member has {min(sizes)} logits for {max(words)} ids")
    return min(sizes)


def differing(one: Mapping[int, Any], other: Mapping[int, Any]) -> str:
    """The ids that do not mean the same, the first few with what they mean."""
    ids: Sequence[int] = sorted(t for t in {*one, *other} if one.get(t) != other.get(t))
    some = [f"{t} is {one.get(t)!r} and {other.get(t)!r}" for t in ids[:SHOWN]]
    more = f", and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return ", ".join(some) + more

"""The configuration of a policy ensemble in vLLM. It loads neither vLLM nor torch."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from engines.base import Capability
from engines.ensemble import EnsembleSpec
from engines.vllm import spec as plain

ALONE = ("tensor_parallel_size", "pipeline_parallel_size")


class Spec(EnsembleSpec):
    """`{kind: ensemble, members: {NAME: PATH}, engine_args: {...}}`; engine_args go to vLLM.

    Members are hosted as one model, so what splits a model over devices is refused, and so are
    drafts: neither has been tried.
    """

    capabilities: ClassVar = plain.Spec.capabilities | {Capability.RULES}

    kind: Literal["ensemble"] = "ensemble"
    engine_args: dict[str, Any] = Field(default_factory=dict, description="vLLM's own")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = self.engine_args
        for key in ALONE:
            if given.get(key, 1) != 1:
                raise ValueError(f"engine_args.{key}: an ensemble runs on one device")
        for key in ("speculative_config", "logits_processors", "quantization", "model", "runner"):
            if given.get(key):
                raise ValueError(f"engine_args.{key}: not with an ensemble")
        return self
